//! The operators and functions that expressions can use: their overloads for the checker, and their
//! implementations.

use std::collections::HashMap;
use std::sync::LazyLock;

use ::cel::common::ast::operators as op;

use super::operators::{self, Outcome};
use super::types::Type;
use super::value::Value;
use super::{conversions, lists, strings};

/// The implementation of an operator or function.
type Run = fn(&[Value]) -> Outcome;

/// An operator or function.
struct Function {
    name: &'static str,
    /// Its overloads, as in `.(string, int): string`. A leading dot marks member functions,
    /// `a.f(b)`, whose first parameter is the receiver. `A` and `B` are type parameters.
    overloads: &'static str,
    run: Run,
}

const fn function(name: &'static str, overloads: &'static str, run: Run) -> Function {
    Function { name, overloads, run }
}

/// All combinations of number types that can be compared, and the other ordered types.
const ORDERED: &str = "(bool,bool):bool (int,int):bool (int,double):bool (int,uint):bool \
    (uint,uint):bool (uint,double):bool (uint,int):bool (double,double):bool (double,int):bool \
    (double,uint):bool (string,string):bool (bytes,bytes):bool";
const COMPARABLE_TO_BOOL: &str = ".(list<int>):bool .(list<uint>):bool .(list<double>):bool \
    .(list<bool>):bool .(list<string>):bool .(list<bytes>):bool";
const COMPARABLE_TO_ELEMENT: &str = ".(list<int>):int .(list<uint>):uint .(list<double>):double \
    .(list<bool>):bool .(list<string>):string .(list<bytes>):bytes";
const COMPARABLE_TO_LIST: &str = ".(list<int>):list<int> .(list<uint>):list<uint> \
    .(list<double>):list<double> .(list<bool>):list<bool> .(list<string>):list<string> \
    .(list<bytes>):list<bytes>";
const SETS: &str = "(list<A>,list<A>):bool";

static FUNCTIONS: &[Function] = &[
    function(op::EQUALS, "(A,A):bool", operators::equals),
    function(op::NOT_EQUALS, "(A,A):bool", operators::not_equals),
    function(op::LESS, ORDERED, operators::less),
    function(op::LESS_EQUALS, ORDERED, operators::less_or_equal),
    function(op::GREATER, ORDERED, operators::greater),
    function(op::GREATER_EQUALS, ORDERED, operators::greater_or_equal),
    function(
        op::ADD,
        "(bytes,bytes):bytes (double,double):double (int,int):int (list<A>,list<A>):list<A> \
         (string,string):string (uint,uint):uint",
        operators::add,
    ),
    function(op::SUBSTRACT, NUMBERS, operators::subtract),
    function(op::MULTIPLY, NUMBERS, operators::multiply),
    function(op::DIVIDE, NUMBERS, operators::divide),
    function(op::MODULO, "(int,int):int (uint,uint):uint", operators::modulo),
    function(op::NEGATE, "(double):double (int):int", operators::negate),
    function(op::IN, "(A,list<A>):bool (A,map<A,B>):bool", operators::is_in),
    function(
        op::INDEX,
        "(list<A>,int):A (map<A,B>,A):B (optional<list<A>>,int):optional<A> \
         (optional<map<A,B>>,A):optional<B>",
        operators::index,
    ),
    function(
        op::OPT_INDEX,
        "(list<A>,int):optional<A> (optional<list<A>>,int):optional<A> \
         (map<A,B>,A):optional<B> (optional<map<A,B>>,A):optional<B>",
        operators::optional_index,
    ),
    function(
        "size",
        "(bytes):int .(bytes):int (list<A>):int .(list<A>):int (map<A,B>):int .(map<A,B>):int \
         (string):int .(string):int",
        conversions::size,
    ),
    function("type", "(A):type<A>", conversions::type_of),
    function("dyn", "(A):dyn", conversions::to_dyn),
    function("bool", "(bool):bool (string):bool", conversions::to_bool),
    function("bytes", "(bytes):bytes (string):bytes", conversions::to_bytes),
    function(
        "double",
        "(double):double (int):double (string):double (uint):double",
        conversions::to_double,
    ),
    function("int", "(int):int (double):int (string):int (uint):int", conversions::to_int),
    function("uint", "(uint):uint (double):uint (int):uint (string):uint", conversions::to_uint),
    function(
        "string",
        "(string):string (bool):string (bytes):string (double):string (int):string (uint):string",
        conversions::to_string,
    ),
    function("optional.of", "(A):optional<A>", conversions::optional_of),
    function("optional.ofNonZeroValue", "(A):optional<A>", conversions::optional_of_non_zero),
    function("optional.none", "():optional<A>", conversions::optional_none),
    function("optional.unwrap", "(list<optional<A>>):list<A>", lists::unwrap),
    function("unwrapOpt", ".(list<optional<A>>):list<A>", lists::unwrap),
    function("value", ".(optional<A>):A", conversions::value),
    function("hasValue", ".(optional<A>):bool", conversions::has_value),
    // These two evaluate their argument only if necessary, so `rewrite` replaces them.
    function("or", ".(optional<A>,optional<A>):optional<A>", conversions::not_called),
    function("orValue", ".(optional<A>,A):A", conversions::not_called),
    function("contains", ".(string,string):bool", strings::contains),
    function("startsWith", ".(string,string):bool", strings::starts_with),
    function("endsWith", ".(string,string):bool", strings::ends_with),
    function("charAt", ".(string,int):string", strings::char_at),
    function(
        "indexOf",
        ".(string,string):int .(string,string,int):int .(list<A>,A):int",
        strings::index_of,
    ),
    function(
        "lastIndexOf",
        ".(string,string):int .(string,string,int):int .(list<A>,A):int",
        strings::last_index_of,
    ),
    function("join", ".(list<string>):string .(list<string>,string):string", strings::join),
    function("lowerAscii", ".(string):string", strings::lower_ascii),
    function("upperAscii", ".(string):string", strings::upper_ascii),
    function(
        "replace",
        ".(string,string,string):string .(string,string,string,int):string",
        strings::replace,
    ),
    function(
        "split",
        ".(string,string):list<string> .(string,string,int):list<string>",
        strings::split,
    ),
    function("substring", ".(string,int):string .(string,int,int):string", strings::substring),
    function("trim", ".(string):string", strings::trim),
    function("strings.quote", "(string):string", strings::quote),
    function("matches", "(string,string):bool .(string,string):bool", strings::matches),
    function("find", ".(string,string):string", strings::find),
    function(
        "findAll",
        ".(string,string):list<string> .(string,string,int):list<string>",
        strings::find_all,
    ),
    function("isSorted", COMPARABLE_TO_BOOL, lists::is_sorted),
    function("min", COMPARABLE_TO_ELEMENT, lists::min),
    function("max", COMPARABLE_TO_ELEMENT, lists::max),
    function("sum", ".(list<int>):int .(list<uint>):uint .(list<double>):double", lists::sum),
    function("sort", COMPARABLE_TO_LIST, lists::sort),
    function("slice", ".(list<A>,int,int):list<A>", lists::slice),
    function("flatten", ".(list<list<A>>):list<A> .(list<dyn>,int):list<dyn>", lists::flatten),
    function("reverse", ".(list<A>):list<A>", lists::reverse),
    function("distinct", ".(list<A>):list<A>", lists::distinct),
    function("first", ".(list<A>):optional<A>", lists::first),
    function("last", ".(list<A>):optional<A>", lists::last),
    function("lists.range", "(int):list<int>", lists::range),
    function("sets.contains", SETS, lists::sets_contains),
    function("sets.equivalent", SETS, lists::sets_equivalent),
    function("sets.intersects", SETS, lists::sets_intersects),
];

const NUMBERS: &str = "(double,double):double (int,int):int (uint,uint):uint";

/// Functions with internal names.
const INTERNAL: &[(&str, Run)] = &[
    ("has", operators::has),
    ("type name", conversions::type_named),
    ("is none", conversions::is_none),
    ("inner", conversions::inner),
    (SUM_OF_UINT, lists::sum_uint),
    (SUM_OF_DOUBLE, lists::sum_double),
];
/// `sum` for a list of `uint` elements.
pub(super) const SUM_OF_UINT: &str = "sum of uint";
/// `sum` for a list of `double` elements.
pub(super) const SUM_OF_DOUBLE: &str = "sum of double";

/// One signature of a function.
#[derive(Debug)]
pub(super) struct Overload {
    pub(super) is_member: bool,
    pub(super) parameters: Vec<Type>,
    pub(super) result: Type,
}

static OVERLOADS: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let parsed =
        |f: &Function| (f.name, f.overloads.split_whitespace().map(parse_overload).collect());
    FUNCTIONS.iter().map(parsed).collect()
});

/// Returns the overloads of a function or operator; `None` if there is no such function.
pub(super) fn overloads(name: &str) -> Option<&'static [Overload]> {
    OVERLOADS.get(name).map(Vec::as_slice)
}

/// Returns the names of all functions and operators.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|f| f.name)
}

/// An implementation of a function.
pub(super) struct Evaluator {
    pub(super) run: Run,
    /// Whether its cost does not depend on the size of its arguments.
    pub(super) is_constant_time: bool,
}

static EVALUATORS: LazyLock<Vec<Evaluator>> = LazyLock::new(|| {
    let evaluator = |name, run| Evaluator { run, is_constant_time: is_constant_time(name) };
    let declared = FUNCTIONS.iter().map(|f| evaluator(f.name, f.run));
    declared.chain(INTERNAL.iter().map(|(name, run)| evaluator(name, *run))).collect()
});

static NUMBERS_OF_NAMES: LazyLock<HashMap<&'static str, usize>> = LazyLock::new(|| {
    let names = FUNCTIONS.iter().map(|f| f.name).chain(INTERNAL.iter().map(|(name, _)| *name));
    names.enumerate().map(|(number, name)| (name, number)).collect()
});

/// Returns the number of a function, which identifies it in rewritten expressions.
pub(super) fn number(name: &str) -> Option<usize> {
    NUMBERS_OF_NAMES.get(name).copied()
}

pub(super) fn by_number(number: usize) -> Option<&'static Evaluator> {
    EVALUATORS.get(number)
}

/// Returns whether its cost does not depend on the size of its arguments.
fn is_constant_time(name: &str) -> bool {
    matches!(
        name,
        op::INDEX
            | op::OPT_INDEX
            | "has"
            | "type"
            | "dyn"
            | "type name"
            | "is none"
            | "inner"
            | "value"
            | "hasValue"
            | "optional.of"
            | "optional.none"
            | "optional.ofNonZeroValue"
            | "first"
            | "last"
    )
}

/// Returns the conversions that are evaluated when an expression is compiled, if they can be.
pub(super) fn conversion(name: &str) -> Option<Run> {
    Some(match name {
        "bool" => conversions::to_bool,
        "bytes" => conversions::to_bytes,
        "dyn" => conversions::to_dyn,
        "double" => conversions::to_double,
        "int" => conversions::to_int,
        "string" => conversions::to_string,
        "uint" => conversions::to_uint,
        _ => return None,
    })
}

fn parse_overload(text: &str) -> Overload {
    let (parameters, result) = text.rsplit_once("):").expect("overloads have results");
    let is_member = parameters.starts_with('.');
    let mut rest = parameters.trim_start_matches('.').trim_start_matches('(');
    let mut types = Vec::new();
    while !rest.is_empty() {
        let (found, after) = parse_type(rest);
        types.push(found);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Overload { is_member, parameters: types, result: parse_type(result).0 }
}

/// Returns the type that `text` begins with, and what follows it.
fn parse_type(text: &str) -> (Type, &str) {
    let end = text.find(['<', '>', ',']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let simple = match name {
        "A" => Some(Type::Param(0)),
        "B" => Some(Type::Param(1)),
        "dyn" => Some(Type::Dyn),
        "bool" => Some(Type::Bool),
        "int" => Some(Type::Int),
        "uint" => Some(Type::Uint),
        "double" => Some(Type::Double),
        "string" => Some(Type::String),
        "bytes" => Some(Type::Bytes),
        _ => None,
    };
    if let Some(simple) = simple {
        return (simple, rest);
    }
    let (first, rest) = parse_type(&rest[1..]);
    match name {
        "map" => {
            let (second, rest) = parse_type(&rest[1..]);
            (Type::map(first, second), &rest[1..])
        }
        "list" => (Type::list(first), &rest[1..]),
        "optional" => (Type::optional(first), &rest[1..]),
        "type" => (Type::Meta(Box::new(first)), &rest[1..]),
        other => unreachable!("there is no type {other}"),
    }
}
