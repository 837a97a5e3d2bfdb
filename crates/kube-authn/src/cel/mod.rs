//! Expressions of the Common Expression Language (CEL) in an `AuthenticationConfiguration`.
//!
//! The crate `cel` parses them and evaluates literals, variables, logic and loops. Types are
//! checked when the file is loaded (`check`), operators and functions evaluate as cel-go does
//! (`bridge`, `functions`), and an evaluation costs no more than it may (`cost`).
//! docs/authentication.md says what differs from kube-apiserver.
//!
//! | file | what it does |
//! |---|---|
//! | `types`, `check` | types, how they unify, and whether an expression has one |
//! | `bridge` | rewrites expressions into calls of the functions here |
//! | `functions` | the overloads of all operators and functions |
//! | `operators`, `conversions`, `strings`, `lists` | what evaluates them |
//! | `value` | values, claims and users |
//! | `names` | types, and what only kube-apiserver has |
//! | `number`, `re2`, `re2_escapes` | numbers and regular expressions as Go reads them |
//! | `inspect` | what an expression reads, and what its result can begin with |

mod bridge;
mod check;
mod conversions;
mod cost;
mod functions;
mod inspect;
mod lists;
mod names;
mod number;
mod operators;
mod re2;
mod re2_escapes;
mod strings;
mod types;
mod value;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use ::cel::common::ast::IdedExpr;
use ::cel::{Context, Env, ExecutionError};
use serde_json::{Map, Value as Json};

pub use self::re2::compile as compile_regexp;
use self::value::Value;

use super::UserInfo;

/// Maximum length of an expression in bytes.
const MAX_LENGTH: usize = 8 << 10;
/// Enough for the parser to get through as many brackets, and to find that they are too many.
const PARSER_STACK: usize = 256 << 20;
/// Nesting up to which an expression is evaluated on the thread that needs its result; each level
/// takes some 50 KiB of its stack.
const SHALLOW: usize = 8;
/// The stack for expressions that are nested deeper.
const DEEP_STACK: usize = 16 << 20;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // Like in cel-go, the last one counts.
    env.set_error_on_duplicate_map_keys(false);
    bridge::register(&mut env).expect("each function is registered once");
    Arc::new(env)
});

/// The variables of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// `claims`, a map from names to anything.
    Claims,
    /// `user`, with `username`, `uid`, `groups` and `extra`.
    User,
}

impl Variable {
    fn name(self) -> &'static str {
        match self {
            Variable::Claims => "claims",
            Variable::User => "user",
        }
    }
}

/// An expression that was found good; clones share it.
#[derive(Clone)]
pub struct Expression(Arc<Compiled>);

struct Compiled {
    source: String,
    ast: IdedExpr,
    is_bool: bool,
    is_deep: bool,
    beginnings: Vec<String>,
    reads_email: bool,
    reads_email_verified: bool,
}

/// Why an expression is none. In the words of kube-apiserver, as far as it has any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The expression is too long.
    #[error("it is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Syntax, an unknown name, or types that do not fit.
    #[error("compilation failed: ERROR: <input>:{line}:{column}: {message}")]
    At {
        /// Within the expression, from 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// The fault.
        message: String,
    },
}

/// Why an expression has no result. For the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The evaluation failed, for example because a claim is missing.
    #[error("{0}")]
    Failed(String),
    /// The evaluation would exceed the cost limit.
    #[error("operation cancelled: actual cost limit exceeded")]
    TooCostly,
    /// The interpreter broke.
    #[error("the interpreter panicked")]
    Panicked,
    /// The result has a type that is not accepted.
    #[error("expression must return {0}")]
    Type(&'static str),
}

/// The values of the variables of expressions.
pub struct Input(Context<'static, 'static>);

impl Input {
    /// Returns the claims of a token.
    pub fn claims(claims: &Map<String, Json>) -> Input {
        Input::new(Variable::Claims, value::claims(claims))
    }

    /// Returns a user that was made of claims.
    pub fn user(user: &UserInfo) -> Input {
        Input::new(Variable::User, value::user(user))
    }

    fn new(variable: Variable, value: Value) -> Input {
        let mut context = Context::with_env(ENVIRONMENT.clone());
        context.add_variable_as_val(variable.name(), bridge::to_interpreter(value));
        Input(context)
    }
}

impl Expression {
    /// Parses and checks an expression with the variables of `variable`.
    ///
    /// # Errors
    /// Returns what is wrong with it, and where.
    pub fn compile(source: &str, variable: Variable) -> Result<Expression, CompileError> {
        if source.len() > MAX_LENGTH {
            return Err(CompileError::TooLong);
        }
        // The parser takes much stack for expressions that are nested too deep, before it says so.
        let compiled = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(PARSER_STACK);
            let thread = thread.spawn_scoped(scope, || compile(source, variable));
            thread
                .map_err(|error| error.to_string())
                .and_then(|thread| thread.join().map_err(|_| "the parser panicked".to_owned()))
        });
        let compiled = compiled.unwrap_or_else(|reason| Err(at((1, 1), &reason)))?;
        Ok(Expression(Arc::new(compiled)))
    }

    /// Returns the source text.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Returns whether the type of the result is a boolean.
    pub fn is_bool(&self) -> bool {
        self.0.is_bool
    }

    /// Returns whether `claims.email` is in it.
    pub fn reads_email(&self) -> bool {
        self.0.reads_email
    }

    /// Returns whether `claims.email_verified` is in it.
    pub fn reads_email_verified(&self) -> bool {
        self.0.reads_email_verified
    }

    /// Returns the literal texts with which the result may begin, as in `"oidc:" + claims.sub`.
    pub fn beginnings(&self) -> &[String] {
        &self.0.beginnings
    }

    /// Evaluates the expression to a text.
    ///
    /// # Errors
    /// See [`EvaluationError`].
    pub fn text(&self, input: &Input) -> Result<String, EvaluationError> {
        match self.evaluate(input)? {
            Value::String(text) => Ok(text.to_string()),
            _ => Err(EvaluationError::Type("a string")),
        }
    }

    /// Evaluates the expression to a list of texts, from a text, a list of texts, or null; without
    /// empty ones.
    ///
    /// # Errors
    /// See [`EvaluationError`].
    pub fn texts(&self, input: &Input) -> Result<Vec<String>, EvaluationError> {
        let result = self.evaluate(input)?;
        result.texts().ok_or(EvaluationError::Type("a string or a list of strings"))
    }

    /// Evaluates the expression to a boolean.
    ///
    /// # Errors
    /// See [`EvaluationError`].
    pub fn is_true(&self, input: &Input) -> Result<bool, EvaluationError> {
        match self.evaluate(input)? {
            Value::Bool(value) => Ok(value),
            _ => Err(EvaluationError::Type("a boolean")),
        }
    }

    fn evaluate(&self, input: &Input) -> Result<Value, EvaluationError> {
        if !self.0.is_deep {
            return self.evaluate_here(input);
        }
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(DEEP_STACK);
            let thread = thread.spawn_scoped(scope, || self.evaluate_here(input));
            let thread = thread.map_err(|error| EvaluationError::Failed(error.to_string()))?;
            thread.join().unwrap_or(Err(EvaluationError::Panicked))
        })
    }

    fn evaluate_here(&self, input: &Input) -> Result<Value, EvaluationError> {
        cost::begin();
        let evaluating = || {
            let result = ::cel::Value::resolve_val(&self.0.ast, &input.0).map_err(about)?;
            bridge::from_interpreter(result.as_ref())
        };
        let result =
            catch_unwind(AssertUnwindSafe(evaluating)).map_err(|_| EvaluationError::Panicked)?;
        // CEL's && and || may have swallowed the error.
        if cost::is_spent() {
            return Err(EvaluationError::TooCostly);
        }
        result.map_err(EvaluationError::Failed)
    }
}

/// Describes an error without the values that caused it, which may be secret and long.
fn about(error: ExecutionError) -> String {
    match error {
        ExecutionError::FunctionError { message, .. } => message,
        ExecutionError::UnexpectedType { got, want } => format!("got {got}, want {want}"),
        _ => "the types of the values do not fit".to_owned(),
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.0.source).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.0.source == other.0.source
    }
}

fn compile(source: &str, variable: Variable) -> Result<Compiled, CompileError> {
    // The parser supports this macro, unlike kube-apiserver; parsing leaves no trace of it.
    if let Some(offset) = source.find("existsOne") {
        let message = "undeclared reference to 'existsOne' (in container ''); write exists_one";
        return Err(at(position(source, source[..offset].chars().count()), message));
    }
    let parsed = ENVIRONMENT.parser().parse_with_source_info(source);
    let (mut ast, info) = parsed.map_err(|errors| match errors.errors.first() {
        Some(error) => {
            let from_one = |number: isize| usize::try_from(number).unwrap_or(1).max(1);
            at((from_one(error.pos.0), from_one(error.pos.1)), &error.msg)
        }
        None => at((1, 1), "syntax error"),
    })?;
    let checked = check::check(&ast, variable).map_err(|problem| {
        let offset = info.offset_for(problem.id).map_or(0, |(start, _)| start as usize);
        at(position(source, offset), &problem.message)
    })?;
    let beginnings = inspect::beginnings(&ast);
    let reads_email = inspect::selects(&ast, variable.name(), "email");
    let reads_email_verified = inspect::selects(&ast, variable.name(), "email_verified");
    bridge::rewrite(&mut ast, &checked);
    let is_bool = checked.found == types::Type::Bool;
    let is_deep = checked.depth > SHALLOW;
    let source = source.to_owned();
    Ok(Compiled { source, ast, is_bool, is_deep, beginnings, reads_email, reads_email_verified })
}

fn at((line, column): (usize, usize), message: &str) -> CompileError {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    CompileError::At { line, column, message }
}

/// Line and column of a character.
fn position(source: &str, offset: usize) -> (usize, usize) {
    let before: String = source.chars().take(offset).collect();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests;
