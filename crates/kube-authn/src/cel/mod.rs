//! Expressions of the Common Expression Language (CEL) in an `AuthenticationConfiguration`.
//!
//! The crate `cel` parses expressions and evaluates literals, variables, logic and loops. Types are
//! checked when the file is loaded (`check`), operators and functions evaluate like in cel-go
//! (`bridge`, `functions`), and the cost of an evaluation is limited (`cost`).
//! docs/authentication.md lists the differences from kube-apiserver.
//!
//! | file | contents |
//! |---|---|
//! | `types`, `check` | types, their unification, and the checker |
//! | `bridge` | rewrites expressions into calls of the functions here |
//! | `functions` | the overloads of all operators and functions |
//! | `operators`, `conversions`, `strings`, `lists` | their implementations |
//! | `value` | values, claims and users |
//! | `names` | names of types, and of functions that only kube-apiserver has |
//! | `number`, `re2`, `re2_escapes` | numbers and regular expressions in Go's syntax |
//! | `inspect` | what an expression reads, and with what its result can begin |

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
/// Stack for the parser. Enough for expressions of the maximum length with any nesting, which the
/// checker then rejects.
const PARSER_STACK: usize = 256 << 20;
/// Nesting depth up to which an expression is evaluated on the calling thread; each level takes
/// some 50 KiB of its stack.
const SHALLOW: usize = 8;
/// Stack size of the thread for deeper expressions.
const DEEP_STACK: usize = 16 << 20;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // Like in cel-go, the last of duplicate keys wins.
    env.set_error_on_duplicate_map_keys(false);
    bridge::register(&mut env).expect("each function is registered once");
    Arc::new(env)
});

/// The variables of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// `claims`, a map from names to any values.
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

/// A checked expression. Clones share it.
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

/// Why an expression is invalid, in kube-apiserver's words where it has any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The expression is too long.
    #[error("it is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Invalid syntax, an unknown name, or mismatched types.
    #[error("compilation failed: ERROR: <input>:{line}:{column}: {message}")]
    At {
        /// The line within the expression, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// The error message.
        message: String,
    },
}

/// Why the evaluation of an expression failed, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The expression failed, for example because a claim is missing.
    #[error("{0}")]
    Failed(String),
    /// The evaluation would exceed the cost limit.
    #[error("operation cancelled: actual cost limit exceeded")]
    TooCostly,
    /// The interpreter panicked.
    #[error("the interpreter panicked")]
    Panicked,
    /// The result has a type that is not accepted here.
    #[error("expression must return {0}")]
    Type(&'static str),
}

/// The values of an expression's variables.
pub struct Input(Context<'static, 'static>);

impl Input {
    /// Creates the variable `claims` from the claims of a token.
    pub fn claims(claims: &Map<String, Json>) -> Input {
        Input::new(Variable::Claims, value::claims(claims))
    }

    /// Creates the variable `user`.
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
    /// Parses and checks an expression that uses `variable`.
    ///
    /// # Errors
    /// Returns the first error and its position.
    pub fn compile(source: &str, variable: Variable) -> Result<Expression, CompileError> {
        if source.len() > MAX_LENGTH {
            return Err(CompileError::TooLong);
        }
        // For deeply nested expressions the parser takes much stack before it fails.
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

    /// Returns whether the result is a boolean.
    pub fn is_bool(&self) -> bool {
        self.0.is_bool
    }

    /// Returns whether the expression contains `claims.email`.
    pub fn reads_email(&self) -> bool {
        self.0.reads_email
    }

    /// Returns whether the expression contains `claims.email_verified`.
    pub fn reads_email_verified(&self) -> bool {
        self.0.reads_email_verified
    }

    /// Returns the literal texts with which the result can begin, as in `"oidc:" + claims.sub`.
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

    /// Evaluates the expression to a list of texts. The result can be a text, a list of texts, or
    /// null; empty texts are omitted.
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
        // CEL's `&&` and `||` may have suppressed the error.
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
    // The parser supports this macro, unlike kube-apiserver. Its use cannot be detected after
    // parsing.
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

/// Returns line and column of a character.
fn position(source: &str, offset: usize) -> (usize, usize) {
    let before: String = source.chars().take(offset).collect();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests;
