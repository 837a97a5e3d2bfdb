//! Reports undefined names and functions, and mismatched types, when a file is loaded instead of
//! when an expression is evaluated, like cel-go's checker.

use std::collections::HashMap;

use ::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators as op,
};

use super::functions::{self, SUM_OF_DOUBLE, SUM_OF_UINT};
use super::names::{self, about};
use super::operators::Outcome;
use super::types::{Substitutions, Type, most_general};
use super::value::Value;
use super::{Variable, bridge, re2};

/// Maximum nesting depth of expressions; each level takes stack space at evaluation.
const MAX_DEPTH: usize = 32;

/// An error, and the part of the expression that causes it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) id: u64,
    pub(super) message: String,
}

/// The result of checking a valid expression.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) found: Type,
    /// The nesting depth of the expression.
    pub(super) depth: usize,
    /// Calls of functions with qualified names, such as `sets.contains`, by the ID of the call.
    pub(super) qualified: HashMap<u64, String>,
    /// Calls of functions with several implementations, by the ID of the call.
    pub(super) variants: HashMap<u64, &'static str>,
}

/// Checks an expression that uses `variable`.
///
/// # Errors
/// Returns the first error.
pub(super) fn check(expr: &IdedExpr, variable: Variable) -> Result<Checked, Problem> {
    let about = match variable {
        Variable::Claims => Type::map(Type::String, Type::Any),
        Variable::User => Type::User,
    };
    let mut checker = Checker {
        scope: vec![(variable.name(), about)],
        depth: 0,
        deepest: 0,
        substitutions: Substitutions::default(),
        literals: Vec::new(),
        qualified: HashMap::new(),
        variants: HashMap::new(),
    };
    let found = checker.check(expr)?;
    checker.check_literals()?;
    let found = checker.substitutions.resolve_to_dyn(&found);
    let Checker { qualified, variants, deepest: depth, .. } = checker;
    Ok(Checked { found, depth, qualified, variants })
}

type Found = Result<Type, Problem>;

struct Checker<'e> {
    scope: Vec<(&'e str, Type)>,
    depth: usize,
    deepest: usize,
    substitutions: Substitutions,
    /// The types of the elements of each list, and of the keys and values of each map, with the IDs
    /// of these expressions.
    literals: Vec<Vec<(u64, Type)>>,
    qualified: HashMap<u64, String>,
    variants: HashMap<u64, &'static str>,
}

impl<'e> Checker<'e> {
    fn check(&mut self, expr: &'e IdedExpr) -> Found {
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        if self.depth > MAX_DEPTH {
            return problem(expr, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        let found = match &expr.expr {
            Expr::Unspecified => problem(expr, "syntax error".to_owned()),
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => self.ident(expr, name),
            Expr::Select(select) => {
                let operand = self.check(&select.operand)?;
                let field = self.field(expr, &operand, &select.field, false)?;
                Ok(if select.test { Type::Bool } else { field })
            }
            Expr::List(list) => {
                let mut elements = Vec::new();
                for (index, element) in list.elements.iter().enumerate() {
                    let is_optional = list.optional_indices.contains(&index);
                    elements.push((element.id, self.element(element, is_optional)?));
                }
                Ok(Type::list(self.join(elements)?))
            }
            Expr::Map(map) => {
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        keys.push((entry.key.id, self.check(&entry.key)?));
                        values.push((entry.value.id, self.element(&entry.value, entry.optional)?));
                    }
                }
                Ok(Type::map(self.join(keys)?, self.join(values)?))
            }
            Expr::Struct(object) => {
                let name = &object.type_name;
                problem(expr, format!("undeclared reference to '{name}' (in container '')"))
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Call(call) => self.call(expr, call),
        };
        self.depth -= 1;
        found
    }

    fn ident(&mut self, expr: &IdedExpr, name: &str) -> Found {
        if let Some((_, found)) = self.scope.iter().rev().find(|(known, _)| *known == name) {
            return Ok(found.clone());
        }
        match names::type_named(name) {
            Some(named) => Ok(Type::Meta(Box::new(named))),
            None => undeclared(expr, name),
        }
    }

    /// Returns the type of an element of a list or map. For `[?a]` and `{'k': ?a}` it is the type
    /// in the optional.
    fn element(&mut self, expr: &'e IdedExpr, is_optional: bool) -> Found {
        let found = self.check(expr)?;
        if !is_optional {
            return Ok(found);
        }
        match self.substitutions.resolve(&found) {
            Type::Optional(inner) => Ok(*inner),
            // cel-go's checker accepts `dyn` here, but kube-apiserver then panics.
            found => {
                problem(expr, format!("expected type 'optional_type({found})' but found '{found}'"))
            }
        }
    }

    /// Returns the common type of all elements.
    fn join(&mut self, elements: Vec<(u64, Type)>) -> Found {
        let mut joined: Option<Type> = None;
        for (id, found) in &elements {
            joined = Some(match joined {
                None => found.clone(),
                Some(before) if self.substitutions.assign(&before, found) => {
                    most_general(before, found.clone())
                }
                Some(before) => return Err(self.mismatch(*id, &before, found)),
            });
        }
        self.literals.push(elements);
        Ok(joined.unwrap_or_else(|| self.substitutions.fresh()))
    }

    fn mismatch(&self, id: u64, expected: &Type, found: &Type) -> Problem {
        let expected = self.substitutions.resolve_to_dyn(expected);
        let found = self.substitutions.resolve_to_dyn(found);
        Problem { id, message: format!("expected type '{expected}' but found '{found}'") }
    }

    /// Checks that all elements of a list, and all keys and values of a map, have exactly the same
    /// type.
    fn check_literals(&self) -> Result<(), Problem> {
        for elements in &self.literals {
            let Some(((_, first), rest)) = elements.split_first() else { continue };
            let expected = self.substitutions.resolve_to_dyn(first);
            for (id, found) in rest {
                if self.substitutions.resolve_to_dyn(found) != expected {
                    return Err(self.mismatch(*id, first, found));
                }
            }
        }
        Ok(())
    }

    /// Checks `operand.name` or `operand.?name`.
    fn field(&mut self, expr: &IdedExpr, operand: &Type, name: &str, is_optional: bool) -> Found {
        let operand = self.substitutions.resolve(operand);
        let (target, was_optional) = match operand {
            Type::Optional(inner) => (*inner, true),
            other => (other, false),
        };
        let found = match &target {
            Type::Map(_, value) => (**value).clone(),
            Type::User => match name {
                "username" | "uid" => Type::String,
                "groups" => Type::list(Type::String),
                "extra" => Type::map(Type::String, Type::list(Type::String)),
                _ => return problem(expr, format!("undefined field '{name}'")),
            },
            Type::Param(_) => {
                self.substitutions.assign(&Type::Dyn, &target);
                Type::Dyn
            }
            other if other.is_dyn() => Type::Dyn,
            other => {
                return problem(expr, format!("type '{other}' does not support field selection"));
            }
        };
        Ok(if is_optional || was_optional { Type::optional(found) } else { found })
    }

    fn comprehension(&mut self, loops: &'e ComprehensionExpr) -> Found {
        let range = self.check(&loops.iter_range)?;
        let element = match self.substitutions.resolve(&range) {
            Type::List(inner) => *inner,
            Type::Map(key, _) => *key,
            range @ (Type::Dyn | Type::Param(_)) => {
                self.substitutions.assign(&Type::Dyn, &range);
                Type::Dyn
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return problem(&loops.iter_range, message);
            }
        };
        if loops.iter_var2.is_some() {
            let message = "macros over two variables are not supported".to_owned();
            return problem(&loops.iter_range, message);
        }
        let accumulated = self.check(&loops.accu_init)?;
        let outside = self.scope.len();
        self.scope.push((&loops.accu_var, accumulated.clone()));
        self.scope.push((&loops.iter_var, element));
        let condition = self.check(&loops.loop_cond)?;
        self.expect(&loops.loop_cond, &Type::Bool, &condition)?;
        let step = self.check(&loops.loop_step)?;
        self.expect(&loops.loop_step, &accumulated, &step)?;
        self.scope.truncate(outside + 1);
        let result = self.check(&loops.result);
        self.scope.truncate(outside);
        Ok(self.substitutions.resolve(&result?))
    }

    fn expect(&mut self, expr: &IdedExpr, expected: &Type, found: &Type) -> Result<(), Problem> {
        match self.substitutions.assign(expected, found) {
            true => Ok(()),
            false => Err(self.mismatch(expr.id, expected, found)),
        }
    }

    fn call(&mut self, expr: &'e IdedExpr, call: &'e CallExpr) -> Found {
        let name = call.func_name.as_str();
        if name == op::OPT_SELECT {
            let [operand, field] = call.args.as_slice() else {
                return problem(expr, "incorrect optional field selection".to_owned());
            };
            let Expr::Literal(LiteralValue::String(field)) = &field.expr else {
                return problem(expr, "incorrect optional field selection".to_owned());
            };
            let operand = self.check(operand)?;
            return self.field(expr, &operand, field.inner(), true);
        }
        if functions::overloads(name).is_none() && !about(name).is_empty() {
            return undeclared(expr, name);
        }
        let args = call.args.iter().map(|arg| self.check(arg)).collect::<Result<Vec<_>, _>>()?;
        let Some(target) = &call.target else {
            return self.resolve(expr, call, name, false, args);
        };
        // `sets.contains(a, b)` is a function of that name, even if `sets` is a variable.
        if let Some(space) = qualified_name(target) {
            let qualified = format!("{space}.{name}");
            if functions::overloads(&qualified).is_some() {
                let found = self.resolve(expr, call, &qualified, false, args);
                self.qualified.insert(expr.id, qualified);
                return found;
            }
            let is_variable = self.scope.iter().any(|(known, _)| *known == space);
            if !is_variable && !about(&qualified).is_empty() {
                return undeclared(expr, &qualified);
            }
        }
        let mut all = vec![self.check(target)?];
        all.extend(args);
        self.resolve(expr, call, name, true, all)
    }

    /// Returns the result type of the overload for these arguments.
    fn resolve(
        &mut self,
        expr: &IdedExpr,
        call: &CallExpr,
        name: &str,
        is_member: bool,
        args: Vec<Type>,
    ) -> Found {
        if let Some(logic) = self.logic(call, name, &args) {
            return logic.and_then(|found| match found {
                Some(found) => Ok(found),
                None => self.no_overload(expr, name, is_member, &args),
            });
        }
        let Some(overloads) = functions::overloads(name) else { return undeclared(expr, name) };
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|overload| overload.is_member == is_member) {
            let mut fresh: HashMap<u32, Type> = HashMap::new();
            let substitutions = &mut self.substitutions;
            let mut instantiate = |of: &Type| {
                of.replace(&mut |id| {
                    fresh.entry(id).or_insert_with(|| substitutions.fresh()).clone()
                })
            };
            let parameters: Vec<Type> = overload.parameters.iter().map(&mut instantiate).collect();
            let returned = instantiate(&overload.result);
            if !self.substitutions.assign_all(&args, &parameters) {
                continue;
            }
            let returned = self.substitutions.resolve(&returned);
            result = Some(match result {
                None => returned,
                Some(before) if !before.is_dyn() && before != returned => Type::Dyn,
                Some(before) => before,
            });
        }
        let Some(result) = result else {
            return self.no_overload(expr, name, is_member, &args);
        };
        if matches!(name, op::INDEX | op::OPT_INDEX) {
            self.check_index(call, &args)?;
        }
        self.check_constants(call, name, is_member)?;
        if name == "sum" {
            match &result {
                Type::Uint => self.variants.insert(expr.id, SUM_OF_UINT),
                Type::Double => self.variants.insert(expr.id, SUM_OF_DOUBLE),
                _ => None,
            };
        }
        Ok(result)
    }

    /// Rejects lists, maps, types and `null` as an index.
    fn check_index(&self, call: &CallExpr, args: &[Type]) -> Result<(), Problem> {
        let (Some(index), Some(found)) = (call.args.get(1), args.get(1)) else { return Ok(()) };
        match self.substitutions.resolve(found) {
            found @ (Type::Null | Type::Bytes | Type::List(_) | Type::Map(..) | Type::Meta(_)) => {
                Err(Problem { id: index.id, message: format!("invalid index of type '{found}'") })
            }
            _ => Ok(()),
        }
    }

    /// Checks operators that the interpreter evaluates. Returns `None` for other functions, and
    /// `Some(Ok(None))` if the operator does not accept these arguments.
    fn logic(
        &mut self,
        call: &CallExpr,
        name: &str,
        args: &[Type],
    ) -> Option<Result<Option<Type>, Problem>> {
        let substitutions = &mut self.substitutions;
        match (name, args) {
            (op::LOGICAL_AND | op::LOGICAL_OR, _) => {
                for (arg, found) in call.args.iter().zip(args) {
                    if !substitutions.assign(found, &Type::Bool) {
                        return Some(Err(self.mismatch(arg.id, &Type::Bool, found)));
                    }
                }
                Some(Ok(Some(Type::Bool)))
            }
            (op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, [one]) => {
                Some(Ok(substitutions.assign(one, &Type::Bool).then_some(Type::Bool)))
            }
            (op::CONDITIONAL, _) => {
                let either = substitutions.fresh();
                let wanted = [Type::Bool, either.clone(), either.clone()];
                let fits = substitutions.assign_all(args, &wanted);
                Some(Ok(fits.then(|| substitutions.resolve(&either))))
            }
            _ => None,
        }
    }

    fn no_overload(&self, expr: &IdedExpr, name: &str, is_member: bool, args: &[Type]) -> Found {
        let names = args.iter().map(|arg| self.substitutions.resolve_to_dyn(arg).to_string());
        let names: Vec<String> = names.collect();
        let signature = match names.split_first() {
            Some((target, rest)) if is_member => format!("{target}.({})", rest.join(", ")),
            _ => format!("({})", names.join(", ")),
        };
        problem(expr, format!("found no matching overload for '{name}' applied to '{signature}'"))
    }

    /// Compiles regular expressions that are literals, and converts literals.
    fn check_constants(&self, call: &CallExpr, name: &str, is_member: bool) -> Result<(), Problem> {
        if matches!(name, "matches" | "find" | "findAll") {
            let pattern = call.args.get(if is_member { 0 } else { 1 });
            if let Some((pattern, Expr::Literal(LiteralValue::String(text)))) =
                pattern.map(|pattern| (pattern, &pattern.expr))
            {
                re2::compile(text.inner()).map_err(|reason| Problem {
                    id: pattern.id,
                    message: format!("invalid {name} argument: {reason}"),
                })?;
            }
        }
        if let Some(Err(message)) = self.conversion(name, &call.args) {
            let id = call.args.first().map_or(0, |arg| arg.id);
            return Err(Problem { id, message });
        }
        Ok(())
    }

    /// Returns the result of converting a constant, if the argument is one.
    fn conversion(&self, name: &str, args: &[IdedExpr]) -> Option<Outcome> {
        match args {
            [arg] => Some(functions::conversion(name)?(&[self.constant(arg)?])),
            _ => None,
        }
    }

    /// Returns the value of an expression without variables that only calls conversions.
    fn constant(&self, expr: &IdedExpr) -> Option<Value> {
        match &expr.expr {
            Expr::Literal(literal) => Some(bridge::of_literal(literal)),
            Expr::Ident(name) if self.scope.iter().all(|(known, _)| known != name) => {
                Some(Value::Type(name.as_str().into()))
            }
            Expr::List(list) => {
                let items = list.elements.iter().map(|element| self.constant(element));
                items.collect::<Option<Vec<_>>>().map(Value::list)
            }
            // The entries do not matter, because no conversion accepts a map.
            Expr::Map(map) => map.entries.iter().try_fold(Value::empty_map(), |map, entry| {
                let EntryExpr::MapEntry(entry) = &entry.expr else { return None };
                self.constant(&entry.key).and(self.constant(&entry.value)).map(|_| map)
            }),
            Expr::Call(CallExpr { func_name, target: None, args }) => {
                self.conversion(func_name, args)?.ok()
            }
            _ => None,
        }
    }
}

/// Returns `a.b` for the target of `a.b.function()`.
fn qualified_name(expr: &IdedExpr) -> Option<String> {
    match &expr.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            Some(format!("{}.{}", qualified_name(&select.operand)?, select.field))
        }
        _ => None,
    }
}

fn problem<T>(expr: &IdedExpr, message: String) -> Result<T, Problem> {
    Err(Problem { id: expr.id, message })
}

fn undeclared(expr: &IdedExpr, name: &str) -> Found {
    problem(expr, format!("undeclared reference to '{name}' (in container ''){}", about(name)))
}

fn of_literal(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}
