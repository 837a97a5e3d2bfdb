//! `--where`: an expression of the Common Expression Language (CEL) over the whole event.
//!
//! Each member of the event is a variable, as in `verb == "get"`; missing members are null. `event`
//! is the event itself, for `has(event.objectRef)`. If an expression fails on an event, such as
//! `responseStatus.code > 400` on one without a status, the event does not match.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::ast::IdedExpr;
use cel::objects::Key;
use cel::{Context, Env, Value};
use serde_json::Value as Json;

use crate::event::json::{self, members};
use crate::event::{Event, Text};

/// Members of an event, in the order of its encoding.
const MEMBERS: [&str; 19] = [
    "kind",
    "apiVersion",
    "level",
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "user",
    "impersonatedUser",
    "authenticationMetadata",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "responseStatus",
    "requestObject",
    "responseObject",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "annotations",
];
/// The maximum length; longer than any readable expression.
const LONGEST: usize = 8 << 10;
/// The parser is recursive and needs a large stack.
const PARSER_STACK: usize = 64 << 20;

/// A compiled expression.
#[derive(Clone)]
pub(crate) struct Condition {
    expression: Arc<IdedExpr>,
    env: Arc<Env>,
    /// The members that the expression may use.
    members: Vec<&'static str>,
    /// Whether the expression may use the whole event.
    whole: bool,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condition")
    }
}

impl Condition {
    /// Compiles an expression. The error describes what is wrong and where.
    pub(crate) fn compile(source: &str) -> Result<Condition, String> {
        if source.len() > LONGEST {
            return Err(format!("it is longer than {LONGEST} bytes"));
        }
        let env = Arc::new(Env::stdlib());
        let parsed = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(PARSER_STACK);
            let thread = thread.spawn_scoped(scope, || match env.parser().parse(source) {
                Ok(expression) => Ok(expression),
                Err(errors) => Err(match errors.errors.first() {
                    Some(error) => {
                        let message = error.msg.split_whitespace().collect::<Vec<_>>().join(" ");
                        format!("line {}, column {}: {message}", error.pos.0, error.pos.1)
                    }
                    None => "syntax error".to_owned(),
                }),
            });
            let thread = thread.map_err(|error| error.to_string())?;
            thread.join().unwrap_or_else(|_| Err("it cannot be parsed".to_owned()))
        });
        let expression = Arc::new(parsed?);
        // A name that is a substring of the expression may be used.
        let members = MEMBERS.into_iter().filter(|member| source.contains(member)).collect();
        let condition = Condition { expression, env, members, whole: source.contains("event") };
        condition.check()?;
        Ok(condition)
    }

    /// Evaluates the expression for an event without members, in which all variables exist, to find
    /// misspelled names and expressions that are not conditions.
    fn check(&self) -> Result<(), String> {
        let mut context = Context::with_env(self.env.clone());
        for member in MEMBERS {
            context.add_variable_from_value(member, Value::Null);
        }
        context.add_variable_from_value("event", value(&Json::Object(Default::default())));
        match Value::resolve(&self.expression, &context) {
            Err(cel::ExecutionError::UndeclaredReference(name)) => Err(format!(
                "undeclared reference to {name:?}; an event has {}",
                MEMBERS.join(", ")
            )),
            Ok(Value::Bool(_) | Value::Null) | Err(_) => Ok(()),
            Ok(other) => Err(format!(
                "the value is a {}, not true or false, so no event can match",
                other.type_of()
            )),
        }
    }

    /// Whether the expression is true for the event.
    pub(crate) fn matches(&self, event: &Event<'_>) -> bool {
        let evaluate =
            AssertUnwindSafe(|| Value::resolve(&self.expression, &self.context(event)?).ok());
        matches!(catch_unwind(evaluate), Ok(Some(Value::Bool(true))))
    }

    /// Returns the variables that the expression may use; others, such as bodies, are not parsed.
    fn context(&self, event: &Event<'_>) -> Option<Context<'static, 'static>> {
        let mut context = Context::with_env(self.env.clone());
        for member in &self.members {
            context.add_variable_from_value(*member, Value::Null);
        }
        if self.whole {
            context.add_variable_from_value("event", value(&parse(event.raw)?));
        }
        if self.members.is_empty() {
            return Some(context);
        }
        members(event.raw, json::skip_space(event.raw, 0), |key, at| {
            let (_, end) = json::value(event.raw, at)?;
            let key = Text::new(key);
            if let Some(member) = self.members.iter().find(|member| key.is(member.as_bytes())) {
                let parsed = value(&parse(&event.raw[at..end])?);
                context.add_variable_from_value(*member, parsed);
            }
            Some(end)
        })?;
        Some(context)
    }
}

fn parse(text: &[u8]) -> Option<Json> {
    serde_json::from_str(&String::from_utf8_lossy(text)).ok()
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => text.clone().into(),
        Json::Array(values) => values.iter().map(value).collect::<Vec<_>>().into(),
        Json::Object(members) => {
            let members =
                members.iter().map(|(key, member)| (Key::from(key.clone()), value(member)));
            members.collect::<HashMap<_, _>>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_see_the_event() {
        let line = br#"{"auditID":"1","verb":"get","user":{"username":"alice","groups":["dev"]},"objectRef":{"name":"db-1"},"responseStatus":{"code":403}}"#;
        let event = Event::parse(line).unwrap();
        for (source, expected) in [
            (r#"verb == "get" && objectRef.name.startsWith("db-")"#, true),
            (r#""dev" in user.groups"#, true),
            (r#"responseStatus.code >= 400 && responseStatus.code < 404"#, true),
            (r#"event.user.username == "bob""#, false),
            (r#"has(event.objectRef)"#, true),
            (r#"has(event.requestObject)"#, false),
            (r#"requestObject == null"#, true),
            (r#"requestObject.spec.replicas > 1"#, false),
            (r#"user.groups.exists(g, g == "dev")"#, true),
            ("verb", false),
        ] {
            assert_eq!(Condition::compile(source).unwrap().matches(&event), expected, "{source}");
        }
    }

    #[test]
    fn errors_say_where() {
        let error = Condition::compile("verb == ").unwrap_err();
        assert!(error.starts_with("line 1, column"), "{error}");
        let error = Condition::compile("vreb == \"get\"").unwrap_err();
        assert!(error.contains("undeclared reference to \"vreb\"; an event has kind, "), "{error}");
        let error = Condition::compile("1 + 1").unwrap_err();
        assert!(error.contains("not true or false"), "{error}");
        let deep = format!("{}1{}", "(".repeat(4000), ")".repeat(4000));
        let _ = Condition::compile(&deep);
    }
}
