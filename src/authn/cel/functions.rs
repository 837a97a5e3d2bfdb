//! The functions that expressions may call: CEL's own, which the interpreter has, and those of
//! Kubernetes' libraries for strings, regular expressions, lists and sets, which are here.

use std::cell::RefCell;
use std::collections::HashMap;

use ::cel::common::types::{self, Type as CelType};
use ::cel::common::value::{CowVal, Val};
use ::cel::{DeclarationError, Env, ExecutionError, Value};
use regex::Regex;

use super::cost;

/// What a parameter takes, and what a function gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Any,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    List,
    Texts,
    Map,
    Optional,
    /// What is in the optional or list that the function belongs to.
    Inner,
    /// The same as the first argument.
    Same,
    Type,
}

/// A function, or one of several of that name.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// `a.f(b)`; the first parameter is then what stands before the dot.
    pub(super) is_member: bool,
    pub(super) parameters: &'static [Kind],
    pub(super) result: Kind,
    /// `None` for those that the interpreter has.
    run: Option<Run>,
}

type Run = for<'b, 'v> fn(Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError>;
type Outcome = Result<Value, ExecutionError>;

const fn standard(
    name: &'static str,
    is_member: bool,
    parameters: &'static [Kind],
    result: Kind,
) -> Function {
    Function { name, is_member, parameters, result, run: None }
}

/// A member function that is here.
macro_rules! member {
    ($name:literal, $parameters:expr, $result:expr, $function:path) => {
        Function {
            name: $name,
            is_member: true,
            parameters: $parameters,
            result: $result,
            run: Some(run!($function)),
        }
    };
}

/// A function that belongs to nothing and is here.
macro_rules! global {
    ($name:literal, $parameters:expr, $result:expr, $function:path) => {
        Function {
            name: $name,
            is_member: false,
            parameters: $parameters,
            result: $result,
            run: Some(run!($function)),
        }
    };
}

macro_rules! run {
    ($function:path) => {{
        fn run<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
            call($function, &args)
        }
        run
    }};
}

use Kind::{
    Any, Bool, Bytes, Double, Inner, Int, List, Map, Optional, Same, Text, Texts, Type, Uint,
};

pub(super) static FUNCTIONS: &[Function] = &[
    standard("size", false, &[Text], Int),
    standard("size", false, &[Bytes], Int),
    standard("size", false, &[List], Int),
    standard("size", false, &[Map], Int),
    standard("size", true, &[Text], Int),
    standard("size", true, &[Bytes], Int),
    standard("size", true, &[List], Int),
    standard("size", true, &[Map], Int),
    standard("contains", true, &[Text, Text], Bool),
    standard("startsWith", true, &[Text, Text], Bool),
    standard("endsWith", true, &[Text, Text], Bool),
    standard("bool", false, &[Bool], Bool),
    standard("bool", false, &[Text], Bool),
    standard("int", false, &[Int], Int),
    standard("int", false, &[Uint], Int),
    standard("int", false, &[Double], Int),
    standard("int", false, &[Text], Int),
    standard("uint", false, &[Uint], Uint),
    standard("uint", false, &[Int], Uint),
    standard("uint", false, &[Double], Uint),
    standard("uint", false, &[Text], Uint),
    standard("double", false, &[Double], Double),
    standard("double", false, &[Int], Double),
    standard("double", false, &[Uint], Double),
    standard("double", false, &[Text], Double),
    standard("string", false, &[Text], Text),
    standard("string", false, &[Bool], Text),
    standard("string", false, &[Int], Text),
    standard("string", false, &[Uint], Text),
    standard("string", false, &[Double], Text),
    standard("string", false, &[Bytes], Text),
    standard("bytes", false, &[Bytes], Bytes),
    standard("bytes", false, &[Text], Bytes),
    standard("dyn", false, &[Any], Any),
    standard("type", false, &[Any], Type),
    standard("optional.none", false, &[], Optional),
    standard("optional.of", false, &[Any], Optional),
    standard("optional.ofNonZeroValue", false, &[Any], Optional),
    standard("value", true, &[Optional], Inner),
    standard("hasValue", true, &[Optional], Bool),
    standard("or", true, &[Optional, Optional], Same),
    standard("orValue", true, &[Optional, Any], Inner),
    member!("charAt", &[Text, Int], Text, char_at),
    member!("indexOf", &[Text, Text], Int, index_of),
    member!("indexOf", &[Text, Text, Int], Int, index_of),
    member!("lastIndexOf", &[Text, Text], Int, last_index_of),
    member!("lastIndexOf", &[Text, Text, Int], Int, last_index_of),
    member!("join", &[List], Text, join),
    member!("join", &[List, Text], Text, join),
    member!("lowerAscii", &[Text], Text, lower_ascii),
    member!("upperAscii", &[Text], Text, upper_ascii),
    member!("replace", &[Text, Text, Text], Text, replace),
    member!("replace", &[Text, Text, Text, Int], Text, replace),
    member!("reverse", &[Text], Text, reverse),
    member!("split", &[Text, Text], Texts, split),
    member!("split", &[Text, Text, Int], Texts, split),
    member!("substring", &[Text, Int], Text, substring),
    member!("substring", &[Text, Int, Int], Text, substring),
    member!("trim", &[Text], Text, trim),
    global!("matches", &[Text, Text], Bool, matches),
    member!("matches", &[Text, Text], Bool, matches),
    member!("find", &[Text, Text], Text, find),
    member!("findAll", &[Text, Text], Texts, find_all),
    member!("findAll", &[Text, Text, Int], Texts, find_all),
    member!("isSorted", &[List], Bool, is_sorted),
    member!("min", &[List], Inner, min),
    member!("max", &[List], Inner, max),
    member!("indexOf", &[List, Any], Int, list_index_of),
    member!("lastIndexOf", &[List, Any], Int, list_last_index_of),
    global!("sets.contains", &[List, List], Bool, sets_contains),
    global!("sets.equivalent", &[List, List], Bool, sets_equivalent),
    global!("sets.intersects", &[List, List], Bool, sets_intersects),
];

/// Makes the functions known that the interpreter has not.
pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    cost::register(env)?;
    for function in FUNCTIONS {
        let Some(run) = function.run else { continue };
        let style = if function.is_member { "member" } else { "global" };
        let id = format!("{style} {} {:?}", function.name, function.parameters);
        let types = |kinds: &[Kind]| kinds.iter().map(|kind| kind.cel_type()).collect();
        match function.parameters.split_first() {
            Some((target, rest)) if function.is_member => {
                let target = target.cel_type();
                env.add_member_overload(function.name, &id, target, types(rest), run)?;
            }
            _ => env.add_overload(function.name, &id, types(function.parameters), run)?,
        }
    }
    Ok(())
}

impl Kind {
    fn cel_type(self) -> CelType {
        match self {
            Kind::Any | Kind::Inner | Kind::Same => types::DYN_TYPE,
            Kind::Bool => types::BOOL_TYPE,
            Kind::Int => types::INT_TYPE,
            Kind::Uint => types::UINT_TYPE,
            Kind::Double => types::DOUBLE_TYPE,
            Kind::Text => types::STRING_TYPE,
            Kind::Bytes => types::BYTES_TYPE,
            Kind::List | Kind::Texts => types::LIST_TYPE,
            Kind::Map => types::MAP_TYPE,
            Kind::Optional => types::OPTIONAL_TYPE,
            Kind::Type => types::TYPE_TYPE,
        }
    }
}

fn call<'b, 'v>(
    function: fn(&[Value]) -> Outcome,
    args: &[CowVal<'b, 'v>],
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let args: Vec<Value> =
        args.iter().map(|arg| Value::try_from(arg.as_ref())).collect::<Result<_, _>>()?;
    for arg in &args {
        charge(arg)?;
    }
    let result = function(&args)?;
    charge(&result)?;
    let result: Box<dyn Val> = result.try_into()?;
    Ok(CowVal::Owned(result))
}

fn charge(value: &Value) -> Result<(), ExecutionError> {
    match value {
        Value::String(text) => cost::charge_bytes(text.len()),
        Value::List(elements) => cost::charge_elements(elements.len()),
        _ => Ok(()),
    }
}

fn failed(message: impl ToString) -> ExecutionError {
    ExecutionError::function_error("function", message)
}

fn text(args: &[Value], index: usize) -> Result<&str, ExecutionError> {
    match args.get(index) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(failed("an argument is no string")),
    }
}

fn list(args: &[Value], index: usize) -> Result<&[Value], ExecutionError> {
    match args.get(index) {
        Some(Value::List(elements)) => Ok(elements),
        _ => Err(failed("an argument is no list")),
    }
}

/// An optional last argument.
fn number(args: &[Value], index: usize) -> Result<Option<i64>, ExecutionError> {
    match args.get(index) {
        Some(Value::Int(number)) => Ok(Some(*number)),
        Some(_) => Err(failed("an argument is no int")),
        None => Ok(None),
    }
}

fn texts<T: Into<String>>(parts: impl Iterator<Item = T>) -> Value {
    parts.map(|part| Value::from(part.into())).collect::<Vec<_>>().into()
}

/// The byte at which the character of this index begins; all indices count characters.
fn offset(text: &str, index: i64) -> Result<usize, ExecutionError> {
    let out_of_range = || failed(format!("index out of range: {index}"));
    let index = usize::try_from(index).map_err(|_| out_of_range())?;
    let mut offsets = text.char_indices().map(|(offset, _)| offset).chain([text.len()]);
    offsets.nth(index).ok_or_else(out_of_range)
}

fn index(text: &str, offset: Option<usize>) -> Value {
    match offset {
        Some(offset) => Value::Int(text[..offset].chars().count() as i64),
        None => Value::Int(-1),
    }
}

fn char_at(args: &[Value]) -> Outcome {
    let this = text(args, 0)?;
    let at = offset(this, number(args, 1)?.unwrap_or_default())?;
    Ok(this[at..].chars().next().map_or_else(String::new, String::from).into())
}

fn index_of(args: &[Value]) -> Outcome {
    let (this, wanted) = (text(args, 0)?, text(args, 1)?);
    let from = offset(this, number(args, 2)?.unwrap_or_default())?;
    Ok(index(this, this[from..].find(wanted).map(|found| from + found)))
}

fn last_index_of(args: &[Value]) -> Outcome {
    let (this, wanted) = (text(args, 0)?, text(args, 1)?);
    let found = match number(args, 2)? {
        None => this.rfind(wanted),
        Some(last) => {
            let last = offset(this, last)?;
            // It may begin there, and so end after it.
            let mut end = (last + wanted.len()).min(this.len());
            while !this.is_char_boundary(end) {
                end -= 1;
            }
            this[..end].rfind(wanted)
        }
    };
    Ok(index(this, found))
}

fn join(args: &[Value]) -> Outcome {
    let separator = if args.len() > 1 { text(args, 1)? } else { "" };
    let elements = list(args, 0)?;
    cost::charge_bytes(separator.len().saturating_mul(elements.len()))?;
    let parts: Result<Vec<&str>, _> =
        (0..elements.len()).map(|index| text(elements, index)).collect();
    let parts = parts?;
    for part in &parts {
        cost::charge_bytes(part.len())?;
    }
    Ok(parts.join(separator).into())
}

fn lower_ascii(args: &[Value]) -> Outcome {
    Ok(text(args, 0)?.to_ascii_lowercase().into())
}

fn upper_ascii(args: &[Value]) -> Outcome {
    Ok(text(args, 0)?.to_ascii_uppercase().into())
}

fn trim(args: &[Value]) -> Outcome {
    Ok(text(args, 0)?.trim().into())
}

fn reverse(args: &[Value]) -> Outcome {
    Ok(text(args, 0)?.chars().rev().collect::<String>().into())
}

fn replace(args: &[Value]) -> Outcome {
    let (this, from, to) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let times = number(args, 3)?.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    // Before it is made: every character could become a long text.
    let found = this.matches(from).count().min(times);
    cost::charge_bytes(found.saturating_mul(to.len()))?;
    Ok(this.replacen(from, to, times).into())
}

fn split(args: &[Value]) -> Outcome {
    let (this, separator) = (text(args, 0)?, text(args, 1)?);
    let limit = number(args, 2)?.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    cost::charge_elements(this.matches(separator).count().min(limit))?;
    if !separator.is_empty() {
        return Ok(texts(this.splitn(limit, separator)));
    }
    // Between all characters, as Go does.
    let mut parts = Vec::new();
    let mut rest = this;
    while let Some(character) = rest.chars().next() {
        if parts.len() + 1 >= limit {
            break;
        }
        let (part, after) = rest.split_at(character.len_utf8());
        parts.push(part);
        rest = after;
    }
    if !rest.is_empty() && limit > 0 {
        parts.push(rest);
    }
    Ok(texts(parts.into_iter()))
}

fn substring(args: &[Value]) -> Outcome {
    let this = text(args, 0)?;
    let start = offset(this, number(args, 1)?.unwrap_or_default())?;
    let end = match number(args, 2)? {
        Some(end) => offset(this, end)?,
        None => this.len(),
    };
    let range = this.get(start..end);
    Ok(range.ok_or_else(|| failed("invalid substring range"))?.into())
}

/// With the compiled `pattern`. Patterns are mostly literals, and the same for each element of a
/// list.
fn with_regex<T>(pattern: &str, run: impl FnOnce(&Regex) -> T) -> Result<T, ExecutionError> {
    const KEPT: usize = 64;
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        if !compiled.contains_key(pattern) {
            let regex = regex(pattern).map_err(failed)?;
            if compiled.len() >= KEPT {
                compiled.clear();
            }
            compiled.insert(pattern.to_owned(), regex);
        }
        Ok(run(&compiled[pattern]))
    })
}

/// A regular expression; small, as it may come from a claim.
pub(super) fn regex(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(pattern).size_limit(1 << 20).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
        _ => format!("{pattern:?} is no regular expression"),
    })
}

fn matches(args: &[Value]) -> Outcome {
    let this = text(args, 0)?;
    Ok(with_regex(text(args, 1)?, |regex| regex.is_match(this))?.into())
}

fn find(args: &[Value]) -> Outcome {
    let this = text(args, 0)?;
    let found = with_regex(text(args, 1)?, |regex| regex.find(this).map(|found| found.as_str()))?;
    Ok(found.unwrap_or_default().into())
}

fn find_all(args: &[Value]) -> Outcome {
    let this = text(args, 0)?;
    let limit = number(args, 2)?.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    with_regex(text(args, 1)?, |regex| {
        texts(regex.find_iter(this).take(limit).map(|found| found.as_str()))
    })
}

fn is_sorted(args: &[Value]) -> Outcome {
    Ok(list(args, 0)?.is_sorted().into())
}

fn min(args: &[Value]) -> Outcome {
    extreme(list(args, 0)?, std::cmp::Ordering::Less)
}

fn max(args: &[Value]) -> Outcome {
    extreme(list(args, 0)?, std::cmp::Ordering::Greater)
}

fn extreme(elements: &[Value], wanted: std::cmp::Ordering) -> Outcome {
    let (first, rest) = elements
        .split_first()
        .ok_or_else(|| failed("min and max need a list that is not empty"))?;
    let mut best = first;
    for element in rest {
        let order = element.partial_cmp(best);
        if order.ok_or_else(|| failed("elements of different types"))? == wanted {
            best = element;
        }
    }
    Ok(best.clone())
}

fn list_index_of(args: &[Value]) -> Outcome {
    let wanted = args.get(1);
    let found = list(args, 0)?.iter().position(|element| Some(element) == wanted);
    Ok(Value::Int(found.map_or(-1, |index| index as i64)))
}

fn list_last_index_of(args: &[Value]) -> Outcome {
    let wanted = args.get(1);
    let found = list(args, 0)?.iter().rposition(|element| Some(element) == wanted);
    Ok(Value::Int(found.map_or(-1, |index| index as i64)))
}

/// Whether all of `wanted` are in `among`.
fn are_in(wanted: &[Value], among: &[Value]) -> Result<bool, ExecutionError> {
    cost::charge_elements(wanted.len().saturating_mul(among.len()))?;
    Ok(wanted.iter().all(|element| among.contains(element)))
}

fn sets_contains(args: &[Value]) -> Outcome {
    Ok(are_in(list(args, 1)?, list(args, 0)?)?.into())
}

fn sets_equivalent(args: &[Value]) -> Outcome {
    let (one, other) = (list(args, 0)?, list(args, 1)?);
    Ok((are_in(one, other)? && are_in(other, one)?).into())
}

fn sets_intersects(args: &[Value]) -> Outcome {
    let (one, other) = (list(args, 0)?, list(args, 1)?);
    cost::charge_elements(one.len().saturating_mul(other.len()))?;
    Ok(one.iter().any(|element| other.contains(element)).into())
}
