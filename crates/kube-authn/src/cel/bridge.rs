//! Connects the interpreter with the operators and functions of this module.
//!
//! The interpreter evaluates literals, variables, `&&`, `||`, `?:` and loops. Everything else is
//! rewritten into calls of functions of this module. They behave like cel-go where the interpreter
//! does not: for types that are only known at evaluation, missing members, and claims.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use ::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr};
use ::cel::common::ast::{LiteralValue, operators as op};
use ::cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelOptional,
    CelString, CelUInt, DYN_TYPE, Type as CelType,
};
use ::cel::common::value::{CowVal, StaticVal, Val};
use ::cel::{DeclarationError, Env, ExecutionError};

use super::check::Checked;
use super::operators::{self, Outcome};
use super::value::{Key, Map, Origin, Value};
use super::{cost, functions, names};

/// The first character of the names of internal functions. Expressions cannot contain it.
const MARK: char = '@';
/// The function that calls another one by its number.
const CALL: &str = "@call";
/// Maximum number of arguments of a function.
const MAX_ARGUMENTS: usize = 4;
/// The function that wraps the range of a macro.
const RANGE: &str = "@range";
/// The function that wraps the keys of a map literal.
const KEY: &str = "@key";
/// The variable that holds the optional on which `or` and `orValue` are called.
const OPTIONAL: &str = "@optional";

/// A list, map, type, or other value that the interpreter passes on without using it.
#[derive(Debug, Clone)]
struct Opaque(Value);

static PASSED_TYPE: CelType = CelType::new_unspecified_type("passed");

impl Val for Opaque {
    fn get_type(&self) -> &CelType {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static CelType {
        &PASSED_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Opaque {}

/// Converts a value for the interpreter.
pub(super) fn to_interpreter(value: Value) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(value)),
        Value::Int(number) => Box::new(CelInt::from(number)),
        Value::Uint(number) => Box::new(CelUInt::from(number)),
        Value::Double(number) => Box::new(CelDouble::from(number)),
        // The interpreter unwraps optionals in `[?a]` and `{?'a': b}`.
        Value::Optional(None) => Box::new(CelOptional::none()),
        Value::Optional(Some(inner)) => {
            Box::new(CelOptional::of(to_interpreter(inner.as_ref().clone())))
        }
        value => Box::new(Opaque(value)),
    }
}

/// Converts a value from the interpreter.
///
/// # Errors
/// Returns an error if the value would exceed the cost limit, or has a type that expressions cannot
/// create.
pub(super) fn from_interpreter(value: &dyn Val) -> Outcome {
    if let Some(Opaque(value)) = value.downcast_ref::<Opaque>() {
        return Ok(value.clone());
    }
    if let Some(value) = value.downcast_ref::<CelBool>() {
        return Ok(Value::Bool(*value.inner()));
    }
    if let Some(number) = value.downcast_ref::<CelInt>() {
        return Ok(Value::Int(*number.inner()));
    }
    if let Some(number) = value.downcast_ref::<CelUInt>() {
        return Ok(Value::Uint(*number.inner()));
    }
    if let Some(number) = value.downcast_ref::<CelDouble>() {
        return Ok(Value::Double(*number.inner()));
    }
    if let Some(text) = value.downcast_ref::<CelString>() {
        cost::charge_bytes(text.inner().len())?;
        return Ok(Value::text(text.inner()));
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        cost::charge_bytes(bytes.inner().len())?;
        return Ok(Value::Bytes(Arc::from(bytes.inner())));
    }
    if value.downcast_ref::<CelNull>().is_some() {
        return Ok(Value::Null);
    }
    if let Some(list) = value.downcast_ref::<CelList>() {
        cost::charge_elements(list.inner().len())?;
        let items: Result<Vec<Value>, _> =
            list.inner().iter().map(|item| from_interpreter(item.as_ref())).collect();
        return items.map(Value::list);
    }
    if let Some(map) = value.downcast_ref::<CelMap>() {
        cost::charge_elements(map.inner().len())?;
        let mut entries = HashMap::new();
        for (key, value) in map.inner() {
            entries.insert(map_key(key)?, from_interpreter(value.as_ref())?);
        }
        return Ok(Value::Map(Map { entries: Arc::new(entries), origin: Origin::Expression }));
    }
    if let Some(optional) = value.downcast_ref::<CelOptional>() {
        let inner = optional.option().map(from_interpreter).transpose()?;
        return Ok(Value::Optional(inner.map(Arc::new)));
    }
    Err("unsupported type".to_owned())
}

fn map_key(key: &CelMapKey<'_>) -> Result<Key, String> {
    Ok(match key {
        CelMapKey::Bool(value) => Key::Bool(*value.inner()),
        CelMapKey::Int(number) => Key::Int(*number.inner()),
        CelMapKey::UInt(number) => Key::Uint(*number.inner()),
        CelMapKey::String(text) => Key::String(Arc::from(text.inner())),
    })
}

/// Converts a literal.
pub(super) fn of_literal(literal: &LiteralValue) -> Value {
    match literal {
        LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
        LiteralValue::Bytes(bytes) => Value::Bytes(Arc::from(bytes.inner())),
        LiteralValue::Double(number) => Value::Double(*number.inner()),
        LiteralValue::Int(number) => Value::Int(*number.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(text) => Value::text(text.inner()),
        LiteralValue::UInt(number) => Value::Uint(*number.inner()),
    }
}

fn failed(reason: String) -> ExecutionError {
    ExecutionError::function_error("cel", reason)
}

/// Registers the functions of this module with the interpreter.
pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(RANGE, RANGE, vec![DYN_TYPE], range)?;
    env.add_overload(KEY, KEY, vec![DYN_TYPE], key)?;
    for count in 1..=MAX_ARGUMENTS + 1 {
        env.add_overload(
            CALL,
            &format!("{CALL} {count}"),
            (0..count).map(|_| DYN_TYPE).collect(),
            call,
        )?;
    }
    Ok(())
}

/// Calls the function whose number is the first argument.
fn call<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let number = args.first().and_then(|number| number.downcast_ref::<CelInt>());
    let number = number.and_then(|number| usize::try_from(*number.inner()).ok());
    let function = number.and_then(functions::by_number);
    let function = function.ok_or_else(|| failed("there is no such function".to_owned()))?;
    let args = args[1..].iter().map(|arg| from_interpreter(arg.as_ref()));
    let args = args.collect::<Result<Vec<Value>, _>>().map_err(failed)?;
    if !function.is_constant_time {
        args.iter().try_for_each(charge).map_err(failed)?;
    }
    let result = (function.run)(&args).map_err(failed)?;
    if !function.is_constant_time {
        charge(&result).map_err(failed)?;
    }
    Ok(CowVal::Owned(to_interpreter(result)))
}

fn charge(value: &Value) -> Result<(), String> {
    match value {
        Value::List(list) => cost::charge_elements(list.items.len()),
        other => cost::charge_bytes(other.size()),
    }
}

/// Returns the elements over which a macro iterates.
fn range<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [value] = args.as_slice() else { return Err(failed("no range".to_owned())) };
    let range = from_interpreter(value.as_ref()).and_then(|value| operators::range(&value));
    let range = range.map_err(failed)?;
    cost::charge_elements(range.len()).map_err(failed)?;
    let items: Vec<Box<dyn Val + 'v>> =
        range.into_iter().map(|item| -> Box<dyn Val + 'v> { to_interpreter(item) }).collect();
    Ok(CowVal::owned(CelList::from(items)))
}

/// Converts a key for the interpreter.
fn key<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [value] = args.as_slice() else { return Err(failed("no key".to_owned())) };
    Ok(CowVal::Owned(match from_interpreter(value.as_ref()).map_err(failed)? {
        Value::String(text) => Box::new(CelString::from(text.to_string())),
        value @ (Value::Bool(_) | Value::Int(_) | Value::Uint(_)) => to_interpreter(value),
        other => return Err(failed(format!("unsupported key type: {}", other.type_name()))),
    }))
}

/// Rewrites a checked expression.
pub(super) fn rewrite(expr: &mut IdedExpr, checked: &Checked) {
    Rewriter { checked, bound: Vec::new() }.rewrite(expr);
}

struct Rewriter<'c> {
    checked: &'c Checked,
    /// The variables of the enclosing macros.
    bound: Vec<String>,
}

impl Rewriter<'_> {
    fn rewrite(&mut self, expr: &mut IdedExpr) {
        let id = expr.id;
        match std::mem::take(&mut expr.expr) {
            Expr::Ident(name) if names::type_named(&name).is_some() && !self.is_bound(&name) => {
                expr.expr = calling(id, "type name", vec![literal(id, &name)]);
            }
            Expr::Select(select) => {
                let mut operand = *select.operand;
                self.rewrite(&mut operand);
                let name = if select.test { "has" } else { op::INDEX };
                expr.expr = calling(id, name, vec![operand, literal(id, &select.field)]);
            }
            Expr::Call(call) => expr.expr = self.call(id, call),
            Expr::Comprehension(loops) => {
                expr.expr = Expr::Comprehension(Box::new(self.comprehension(*loops)));
            }
            Expr::List(mut list) => {
                list.elements.iter_mut().for_each(|element| self.rewrite(element));
                expr.expr = Expr::List(list);
            }
            Expr::Map(mut map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.rewrite(&mut entry.key);
                        let id = entry.key.id;
                        let key = std::mem::take(&mut entry.key);
                        entry.key = IdedExpr { id, expr: plain_call(KEY, vec![key]) };
                        self.rewrite(&mut entry.value);
                    }
                }
                expr.expr = Expr::Map(map);
            }
            other => expr.expr = other,
        }
    }

    fn is_bound(&self, name: &str) -> bool {
        self.bound.iter().any(|bound| bound == name)
    }

    fn comprehension(&mut self, mut loops: ComprehensionExpr) -> ComprehensionExpr {
        self.rewrite(&mut loops.iter_range);
        self.rewrite(&mut loops.accu_init);
        let outside = self.bound.len();
        self.bound.push(loops.accu_var.clone());
        self.rewrite(&mut loops.result);
        self.bound.push(loops.iter_var.clone());
        self.rewrite(&mut loops.loop_cond);
        self.rewrite(&mut loops.loop_step);
        self.bound.truncate(outside);
        let id = loops.iter_range.id;
        let range = std::mem::take(&mut loops.iter_range);
        loops.iter_range = IdedExpr { id, expr: plain_call(RANGE, vec![range]) };
        loops
    }

    fn call(&mut self, id: u64, call: CallExpr) -> Expr {
        let CallExpr { func_name, target, mut args } = call;
        args.iter_mut().for_each(|arg| self.rewrite(arg));
        // The interpreter itself evaluates logical operators, and the operator with which macros
        // append results.
        let appends = func_name == op::ADD
            && matches!(args.first(), Some(IdedExpr { expr: Expr::Ident(name), .. }) if name.starts_with(MARK));
        if appends || is_logic(&func_name) {
            return Expr::Call(CallExpr { func_name, target: None, args });
        }
        if func_name == op::OPT_SELECT {
            return calling(id, op::OPT_INDEX, args);
        }
        let Some(target) = target else { return calling(id, &func_name, args) };
        if let Some(name) = self.checked.qualified.get(&id) {
            return calling(id, name, args);
        }
        let mut target = *target;
        self.rewrite(&mut target);
        if matches!(func_name.as_str(), "or" | "orValue")
            && let Some(alternative) = args.pop()
        {
            return either(id, &func_name, target, alternative);
        }
        let name = self.checked.variants.get(&id).copied().unwrap_or(&func_name);
        args.insert(0, target);
        calling(id, name, args)
    }
}

/// Returns whether the interpreter evaluates a call itself.
fn is_logic(name: &str) -> bool {
    matches!(
        name,
        op::CONDITIONAL
            | op::LOGICAL_AND
            | op::LOGICAL_OR
            | op::LOGICAL_NOT
            | op::NOT_STRICTLY_FALSE
    )
}

/// Rewrites `target.or(alternative)` and `target.orValue(alternative)`, which evaluate the
/// alternative only if necessary. A loop without iterations binds the target to a variable.
fn either(id: u64, name: &str, target: IdedExpr, alternative: IdedExpr) -> Expr {
    let ided = |expr: Expr| IdedExpr { id, expr };
    let bound = || ided(Expr::Ident(OPTIONAL.to_owned()));
    let value = if name == "or" { bound() } else { ided(calling(id, "inner", vec![bound()])) };
    let is_none = ided(calling(id, "is none", vec![bound()]));
    let never = || ided(Expr::Literal(LiteralValue::Boolean(CelBool::from(false))));
    Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: ided(Expr::List(ListExpr {
            elements: Vec::new(),
            optional_indices: Vec::new(),
        })),
        iter_var: "@unused".to_owned(),
        iter_var2: None,
        accu_var: OPTIONAL.to_owned(),
        accu_init: target,
        loop_cond: never(),
        loop_step: bound(),
        result: ided(plain_call(op::CONDITIONAL, vec![is_none, alternative, value])),
    }))
}

fn calling(id: u64, name: &str, mut args: Vec<IdedExpr>) -> Expr {
    // The checker only accepts functions with known names, so an invalid number cannot occur.
    let number = functions::number(name).and_then(|number| i64::try_from(number).ok());
    let number = LiteralValue::Int(CelInt::from(number.unwrap_or(-1)));
    args.insert(0, IdedExpr { id, expr: Expr::Literal(number) });
    plain_call(CALL, args)
}

fn plain_call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

fn literal(id: u64, text: &str) -> IdedExpr {
    let text = CelString::from(text.to_owned());
    IdedExpr { id, expr: Expr::Literal(LiteralValue::String(text)) }
}
