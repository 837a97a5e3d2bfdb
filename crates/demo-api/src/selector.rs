//! Label and field selectors, applied to objects.

use serde_json::Value;

use super::error::ApiError;
use super::object;
use k8s_audit::request::label_selector;

/// The selectors of a list or watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<LabelTerm>,
    fields: Vec<FieldTerm>,
}

#[derive(Debug, Clone)]
struct LabelTerm {
    key: String,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Exists(bool),
    In(bool, Vec<String>),
    Above(i64),
    Below(i64),
}

#[derive(Debug, Clone)]
struct FieldTerm {
    pointer: String,
    equal: bool,
    value: String,
}

impl Selector {
    /// Parses `labelSelector` and `fieldSelector`; either may be empty.
    ///
    /// # Errors
    /// 400 if one of them is invalid.
    pub(crate) fn new(labels: &str, fields: &str) -> Result<Selector, ApiError> {
        if !label_selector::is_valid(labels) {
            let message =
                format!("unable to parse requirement: {labels:?} is not a label selector");
            return Err(ApiError::bad_request(message));
        }
        let terms = |text: &str| {
            split(text).iter().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect()
        };
        let label_terms: Vec<String> = terms(labels);
        let field_terms: Vec<String> = terms(fields);
        Ok(Selector {
            labels: label_terms.iter().map(|term| label_term(term)).collect(),
            fields: field_terms.iter().map(|term| field_term(term)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether it selects this object.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        self.labels.iter().all(|term| term.test.holds(label(&term.key)))
            && self
                .fields
                .iter()
                .all(|term| (object::text(object, &term.pointer) == term.value) == term.equal)
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self {
            Test::Exists(expected) => value.is_some() == *expected,
            Test::In(expected, values) => {
                value.is_some_and(|value| values.iter().any(|v| v == value)) == *expected
            }
            Test::Above(limit) => number().is_some_and(|n| n > *limit),
            Test::Below(limit) => number().is_some_and(|n| n < *limit),
        }
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(|c| {
        inside = (inside || c == '(') && c != ')';
        c == ',' && !inside
    })
    .collect()
}

/// Parses one requirement of a selector with valid syntax.
fn label_term(term: &str) -> LabelTerm {
    let of = |key: &str, test| LabelTerm { key: key.trim().to_owned(), test };
    if let Some(key) = term.strip_prefix('!') {
        return of(key, Test::Exists(false));
    }
    if let Some((head, values)) = term.trim_end_matches(')').split_once('(') {
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace).unwrap_or((head, "in"));
        return of(key, Test::In(operator == "in", values));
    }
    let operators = [("!=", false), ("==", true), ("=", true)];
    for (operator, expected) in operators {
        if let Some((key, value)) = term.split_once(operator) {
            return of(key, Test::In(expected, vec![value.trim().to_owned()]));
        }
    }
    let limit = |value: &str| value.trim().parse().unwrap_or(0);
    if let Some((key, value)) = term.split_once('>') {
        return of(key, Test::Above(limit(value)));
    }
    if let Some((key, value)) = term.split_once('<') {
        return of(key, Test::Below(limit(value)));
    }
    of(term, Test::Exists(true))
}

fn field_term(term: &str) -> Result<FieldTerm, ApiError> {
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((path, value)) = term.split_once(operator) {
            if value.contains('=') {
                let message = "invalid field selector: unescaped character in value: 61";
                return Err(ApiError::bad_request(message));
            }
            let pointer = format!("/{}", path.trim().replace('.', "/"));
            return Ok(FieldTerm { pointer, equal, value: value.trim().into() });
        }
    }
    Err(ApiError::bad_request(format!("invalid selector: '{term}'; can't understand '{term}'")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selects_by_labels_and_fields() {
        let object = json!({
            "metadata": {"name": "a", "namespace": "x", "labels": {"app": "web", "n": "5"}},
            "status": {"phase": "Running"},
        });
        let cases = [
            ("", "", true),
            ("app=web", "", true),
            ("app==web,n", "", true),
            ("app!=web", "", false),
            ("other!=web", "", true),
            ("!other", "", true),
            ("app in (web, db)", "", true),
            ("app notin (web,db),n", "", false),
            ("n>4", "", true),
            ("n<4", "", false),
            ("", "metadata.name=a,metadata.namespace=x", true),
            ("", "metadata.name!=a", false),
            ("", "status.phase=Running", true),
            ("app=db", "metadata.name=a", false),
        ];
        for (labels, fields, expected) in cases {
            let selector = Selector::new(labels, fields).unwrap();
            assert_eq!(selector.matches(&object), expected, "{labels} {fields}");
        }
        assert!(Selector::new("=", "").is_err());
        assert!(Selector::new("", "===").is_err());
        assert!(Selector::new("", "name").is_err());
    }
}
