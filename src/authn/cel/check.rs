//! Finds when a file is loaded what the interpreter would find only when somebody calls: names and
//! functions that there are not, and types that do not fit, as cel-go's checker does.

use std::fmt;

use ::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators as op,
};

use super::Variable;
use super::functions::{self, FUNCTIONS, Function, Kind};

/// How deep expressions may be nested; evaluation takes stack for each level.
const MAX_DEPTH: usize = 32;

/// What an expression gives, as far as can be known without claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    /// Anything.
    Dyn,
    /// What is in an empty list; fits everything.
    Unbound,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    List(Box<Type>),
    Map(Box<Type>),
    Optional(Box<Type>),
    /// Kubernetes' `UserInfo`.
    User,
    /// The type of a type, as in `type(claims.n) == int`.
    Meta,
}

/// What is wrong, and with which part of the expression.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) id: u64,
    pub(super) message: String,
}

type Checked = Result<Type, Problem>;

/// The type of an expression about `variable`.
pub(super) fn check(expr: &IdedExpr, variable: Variable) -> Checked {
    let about = match variable {
        Variable::Claims => Type::Map(Box::new(Type::Dyn)),
        Variable::User => Type::User,
    };
    Checker { scope: vec![(variable.name(), about)], depth: 0 }.check(expr)
}

struct Checker<'e> {
    scope: Vec<(&'e str, Type)>,
    depth: usize,
}

impl<'e> Checker<'e> {
    fn check(&mut self, expr: &'e IdedExpr) -> Checked {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return problem(expr, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        let found = match &expr.expr {
            Expr::Unspecified => problem(expr, "syntax error".to_owned()),
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => self.ident(expr, name),
            Expr::Select(select) => {
                let operand = self.check(&select.operand)?;
                let field = field(expr, &operand, &select.field)?;
                Ok(if select.test { Type::Bool } else { field })
            }
            Expr::List(list) => {
                let mut inner = Type::Unbound;
                for element in &list.elements {
                    let found = self.check(element)?;
                    inner = join(&inner, &found).ok_or_else(|| Problem {
                        id: element.id,
                        message: format!("expected type '{inner}' but found '{found}'"),
                    })?;
                }
                Ok(Type::List(Box::new(inner)))
            }
            Expr::Map(map) => {
                let mut inner = Type::Unbound;
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.check(&entry.key)?;
                        let found = self.check(&entry.value)?;
                        inner = join(&inner, &found).unwrap_or(Type::Dyn);
                    }
                }
                Ok(Type::Map(Box::new(inner)))
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

    fn ident(&self, expr: &IdedExpr, name: &str) -> Checked {
        const TYPES: [&str; 9] =
            ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];
        match self.scope.iter().rev().find(|(known, _)| *known == name) {
            Some((_, found)) => Ok(found.clone()),
            None if TYPES.contains(&name) || name == "type" => Ok(Type::Meta),
            None => problem(expr, format!("undeclared reference to '{name}' (in container '')")),
        }
    }

    fn comprehension(&mut self, loops: &'e ComprehensionExpr) -> Checked {
        let element = match self.check(&loops.iter_range)? {
            Type::List(inner) => *inner,
            Type::Map(_) => Type::String,
            Type::Dyn | Type::Unbound => Type::Dyn,
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
        self.scope.push((&loops.accu_var, accumulated));
        self.scope.push((&loops.iter_var, element));
        self.check(&loops.loop_cond)?;
        let step = self.check(&loops.loop_step)?;
        self.scope.truncate(outside);
        self.scope.push((&loops.accu_var, step));
        let result = self.check(&loops.result);
        self.scope.truncate(outside);
        result
    }

    fn call(&mut self, expr: &'e IdedExpr, call: &'e CallExpr) -> Checked {
        // `sets.contains(a, b)` is a function of that name, if `sets` is no variable.
        let qualified = call.target.as_ref().and_then(|target| match &target.expr {
            Expr::Ident(space) if !self.scope.iter().any(|(name, _)| name == space) => {
                Some(format!("{space}.{}", call.func_name))
            }
            _ => None,
        });
        if let Some(name) = qualified {
            let args = self.check_all(&call.args)?;
            return function(expr, &name, false, &args);
        }
        let mut args = Vec::new();
        if let Some(target) = &call.target {
            args.push(self.check(target)?);
        }
        args.extend(self.check_all(&call.args)?);
        if call.target.is_some() {
            return function(expr, &call.func_name, true, &args).and_then(|found| {
                self.check_pattern(call)?;
                Ok(found)
            });
        }
        match operator(&call.func_name, &args) {
            Some(Some(found)) => Ok(found),
            Some(None) => no_overload(expr, &call.func_name, false, &args),
            None if matches!(call.func_name.as_str(), op::OPT_SELECT) => {
                let name = match call.args.get(1).map(|arg| &arg.expr) {
                    Some(Expr::Literal(LiteralValue::String(name))) => name.inner().to_owned(),
                    _ => String::new(),
                };
                let found = field(expr, unwrapped(&args[0]), &name)?;
                Ok(Type::Optional(Box::new(found)))
            }
            None => {
                let found = function(expr, &call.func_name, false, &args)?;
                self.check_pattern(call)?;
                Ok(found)
            }
        }
    }

    fn check_all(&mut self, args: &'e [IdedExpr]) -> Result<Vec<Type>, Problem> {
        args.iter().map(|arg| self.check(arg)).collect()
    }

    /// Regular expressions that are literals are compiled.
    fn check_pattern(&self, call: &CallExpr) -> Result<(), Problem> {
        if !matches!(call.func_name.as_str(), "matches" | "find" | "findAll") {
            return Ok(());
        }
        let pattern = call.args.get(if call.target.is_some() { 0 } else { 1 });
        match pattern.map(|pattern| (pattern, &pattern.expr)) {
            Some((expr, Expr::Literal(LiteralValue::String(text)))) => {
                functions::regex(text.inner())
                    .map(|_| ())
                    .map_err(|message| Problem { id: expr.id, message })
            }
            _ => Ok(()),
        }
    }
}

fn problem(expr: &IdedExpr, message: String) -> Checked {
    Err(Problem { id: expr.id, message })
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

/// `operand.name`
fn field(expr: &IdedExpr, operand: &Type, name: &str) -> Checked {
    match operand {
        Type::Dyn | Type::Unbound => Ok(Type::Dyn),
        Type::Map(inner) => Ok((**inner).clone()),
        Type::Optional(inner) => Ok(Type::Optional(Box::new(field(expr, inner, name)?))),
        Type::User => match name {
            "username" | "uid" => Ok(Type::String),
            "groups" => Ok(Type::List(Box::new(Type::String))),
            "extra" => Ok(Type::Map(Box::new(Type::List(Box::new(Type::String))))),
            _ => problem(expr, format!("undefined field '{name}'")),
        },
        other => problem(expr, format!("type '{other}' does not support field selection")),
    }
}

/// What an operator gives; `None` if it is none, `Some(None)` if it does not take these.
fn operator(name: &str, args: &[Type]) -> Option<Option<Type>> {
    let number = |t: &Type| matches!(t, Type::Int | Type::Uint | Type::Double);
    let any = |t: &Type| matches!(t, Type::Dyn | Type::Unbound);
    let is = |t: &Type, wanted: &Type| fits(t, wanted);
    let when = |condition: bool, found: Type| condition.then_some(found);
    Some(match (name, args) {
        (op::CONDITIONAL, [condition, one, other]) if is(condition, &Type::Bool) => {
            join(one, other)
        }
        (op::LOGICAL_AND | op::LOGICAL_OR, [one, other]) => {
            when(is(one, &Type::Bool) && is(other, &Type::Bool), Type::Bool)
        }
        (op::LOGICAL_NOT, [one]) => when(is(one, &Type::Bool), Type::Bool),
        (op::NOT_STRICTLY_FALSE, [_]) => Some(Type::Bool),
        (op::EQUALS | op::NOT_EQUALS, [one, other]) => {
            let same = join(one, other).is_some() || (number(one) && number(other));
            when(same, Type::Bool)
        }
        (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [one, other]) => {
            let ordered = |t: &Type| {
                number(t) || any(t) || matches!(t, Type::Bool | Type::String | Type::Bytes)
            };
            let same = join(one, other).is_some() || (number(one) && number(other));
            when(ordered(one) && ordered(other) && same, Type::Bool)
        }
        (op::ADD, [one, other]) => {
            let adds = |t: &Type| {
                number(t) || any(t) || matches!(t, Type::String | Type::Bytes | Type::List(_))
            };
            join(one, other).filter(|_| adds(one) && adds(other))
        }
        (op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [one, other]) => {
            let counts = |t: &Type| number(t) || any(t);
            join(one, other).filter(|_| counts(one) && counts(other))
        }
        (op::NEGATE, [one]) => when(number(one) || any(one), one.clone()),
        (op::IN, [element, among]) => match among {
            Type::List(inner) => when(join(element, inner).is_some(), Type::Bool),
            Type::Map(_) => when(is(element, &Type::String), Type::Bool),
            _ => when(any(among), Type::Bool),
        },
        (op::INDEX, [Type::Optional(of), at]) => {
            element(of, at).map(|inner| Type::Optional(Box::new(inner)))
        }
        (op::INDEX, [of, at]) => element(of, at),
        (op::OPT_INDEX, [of, at]) => {
            element(unwrapped(of), at).map(|inner| Type::Optional(Box::new(inner)))
        }
        (op::CONDITIONAL, _) => None,
        _ => return None,
    })
}

/// What an optional holds, or the type itself.
fn unwrapped(found: &Type) -> &Type {
    if let Type::Optional(inner) = found { inner } else { found }
}

/// `of[at]`
fn element(of: &Type, at: &Type) -> Option<Type> {
    match of {
        Type::Dyn | Type::Unbound => Some(Type::Dyn),
        Type::List(inner) if [Type::Int, Type::Uint, Type::Double].iter().any(|t| fits(at, t)) => {
            Some((**inner).clone())
        }
        Type::Map(inner) if fits(at, &Type::String) => Some((**inner).clone()),
        _ => None,
    }
}

fn function(expr: &IdedExpr, name: &str, is_member: bool, args: &[Type]) -> Checked {
    let named = FUNCTIONS.iter().filter(|f| f.name == name && f.is_member == is_member);
    let mut named = named.peekable();
    if named.peek().is_none() {
        return problem(
            expr,
            format!("undeclared reference to '{name}' (in container ''){}", about(name)),
        );
    }
    let mut results = named.filter(|function| takes(function, args)).map(|f| result(f, args));
    match results.next() {
        None => no_overload(expr, name, is_member, args),
        Some(first) => {
            Ok(results.fold(first, |one, other| if one == other { one } else { Type::Dyn }))
        }
    }
}

/// Functions of kube-apiserver that are missing here are told from those that nobody has.
fn about(name: &str) -> &'static str {
    const MISSING: [&str; 28] = [
        "format",
        "strings.quote",
        "sum",
        "url",
        "isURL",
        "ip",
        "isIP",
        "ip.isCanonical",
        "cidr",
        "isCIDR",
        "quantity",
        "isQuantity",
        "semver",
        "isSemver",
        "duration",
        "timestamp",
        "getFullYear",
        "getMonth",
        "getDate",
        "getHours",
        "getMinutes",
        "getSeconds",
        "transformList",
        "transformMap",
        "transformMapEntry",
        "base64.encode",
        "base64.decode",
        "cel.bind",
    ];
    if MISSING.contains(&name) { ": this proxy does not support it" } else { "" }
}

fn no_overload(expr: &IdedExpr, name: &str, is_member: bool, args: &[Type]) -> Checked {
    let names: Vec<String> = args.iter().map(Type::to_string).collect();
    let signature = match names.split_first() {
        Some((target, rest)) if is_member => format!("{target}.({})", rest.join(", ")),
        _ => format!("({})", names.join(", ")),
    };
    problem(expr, format!("found no matching overload for '{name}' applied to '{signature}'"))
}

fn takes(function: &Function, args: &[Type]) -> bool {
    function.parameters.len() == args.len()
        && function.parameters.iter().zip(args).all(|(kind, arg)| match (kind, arg) {
            (Kind::Any, _) | (_, Type::Dyn | Type::Unbound) => true,
            (Kind::List | Kind::Texts, Type::List(_)) => true,
            (Kind::Map, Type::Map(_)) | (Kind::Optional, Type::Optional(_)) => true,
            (kind, arg) => of_kind(*kind) == *arg,
        })
}

fn result(function: &Function, args: &[Type]) -> Type {
    match (function.result, args.first()) {
        (Kind::Inner, Some(Type::List(inner) | Type::Optional(inner))) => (**inner).clone(),
        (Kind::Same, Some(first)) => first.clone(),
        (Kind::Optional, Some(first)) => Type::Optional(Box::new(first.clone())),
        (kind, _) => of_kind(kind),
    }
}

fn of_kind(kind: Kind) -> Type {
    match kind {
        Kind::Any | Kind::Inner | Kind::Same => Type::Dyn,
        Kind::Bool => Type::Bool,
        Kind::Int => Type::Int,
        Kind::Uint => Type::Uint,
        Kind::Double => Type::Double,
        Kind::Text => Type::String,
        Kind::Bytes => Type::Bytes,
        Kind::List => Type::List(Box::new(Type::Dyn)),
        Kind::Texts => Type::List(Box::new(Type::String)),
        Kind::Map => Type::Map(Box::new(Type::Dyn)),
        Kind::Optional => Type::Optional(Box::new(Type::Unbound)),
        Kind::Type => Type::Meta,
    }
}

fn fits(found: &Type, wanted: &Type) -> bool {
    join(found, wanted).is_some()
}

/// The type of what is either of the two; `None` if there is none.
fn join(one: &Type, other: &Type) -> Option<Type> {
    match (one, other) {
        (Type::Unbound, found) | (found, Type::Unbound) => Some(found.clone()),
        (Type::Dyn, _) | (_, Type::Dyn) => Some(Type::Dyn),
        (Type::List(one), Type::List(other)) => Some(Type::List(Box::new(join(one, other)?))),
        (Type::Map(one), Type::Map(other)) => Some(Type::Map(Box::new(join(one, other)?))),
        (Type::Optional(one), Type::Optional(other)) => {
            Some(Type::Optional(Box::new(join(one, other)?)))
        }
        (one, other) => (one == other).then(|| one.clone()),
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn | Type::Unbound => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::List(inner) => write!(f, "list({inner})"),
            Type::Map(inner) => write!(f, "map(string, {inner})"),
            Type::Optional(inner) => write!(f, "optional_type({inner})"),
            Type::User => f.write_str("kubernetes.UserInfo"),
            Type::Meta => f.write_str("type"),
        }
    }
}
