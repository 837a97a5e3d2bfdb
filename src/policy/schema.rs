//! Whether a document has the types that audit.k8s.io/v1 `Policy` has: what kube-apiserver's
//! decoder finds before any rule is looked at.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::problem::{Problems, Remedy, did_you_mean};
use super::tree::{Node, Number, Value};
use crate::audit::go_quote::quote;

/// What a member must be. The names are those of Go's types, for messages.
pub(super) enum Type {
    String(&'static str),
    Bool,
    Integer,
    Time,
    Anything,
    List(&'static Type),
    Map(&'static Type),
    Struct(&'static Struct),
}

/// The members that a map can have.
pub(super) struct Struct {
    name: &'static str,
    members: &'static [(&'static str, Type)],
}

const STRING: Type = Type::String("string");
const STRINGS: Type = Type::List(&STRING);

/// audit.k8s.io/v1 `Policy`.
pub(super) static POLICY: Struct = Struct {
    name: "Policy",
    members: &[
        ("apiVersion", STRING),
        ("kind", STRING),
        ("metadata", Type::Struct(&OBJECT_META)),
        ("rules", Type::List(&Type::Struct(&POLICY_RULE))),
        ("omitStages", Type::List(&STAGE)),
        ("omitManagedFields", Type::Bool),
    ],
};

const STAGE: Type = Type::String("v1.Stage");

static POLICY_RULE: Struct = Struct {
    name: "PolicyRule",
    members: &[
        ("level", Type::String("v1.Level")),
        ("users", STRINGS),
        ("userGroups", STRINGS),
        ("verbs", STRINGS),
        ("resources", Type::List(&Type::Struct(&GROUP_RESOURCES))),
        ("namespaces", STRINGS),
        ("nonResourceURLs", STRINGS),
        ("omitStages", Type::List(&STAGE)),
        ("omitManagedFields", Type::Bool),
    ],
};

static GROUP_RESOURCES: Struct = Struct {
    name: "GroupResources",
    members: &[("group", STRING), ("resources", STRINGS), ("resourceNames", STRINGS)],
};

const OBJECT_META_MEMBERS: [(&str, Type); 15] = [
    ("name", STRING),
    ("generateName", STRING),
    ("namespace", STRING),
    ("selfLink", STRING),
    ("uid", Type::String("types.UID")),
    ("resourceVersion", STRING),
    ("generation", Type::Integer),
    ("creationTimestamp", Type::Time),
    ("deletionTimestamp", Type::Time),
    ("deletionGracePeriodSeconds", Type::Integer),
    ("labels", Type::Map(&STRING)),
    ("annotations", Type::Map(&STRING)),
    ("ownerReferences", Type::List(&Type::Struct(&OWNER_REFERENCE))),
    ("finalizers", STRINGS),
    ("managedFields", Type::List(&Type::Struct(&MANAGED_FIELDS_ENTRY))),
];

static OBJECT_META: Struct = Struct { name: "ObjectMeta", members: &OBJECT_META_MEMBERS };

static OWNER_REFERENCE: Struct = Struct {
    name: "OwnerReference",
    members: &[
        ("apiVersion", STRING),
        ("kind", STRING),
        ("name", STRING),
        ("uid", Type::String("types.UID")),
        ("controller", Type::Bool),
        ("blockOwnerDeletion", Type::Bool),
    ],
};

static MANAGED_FIELDS_ENTRY: Struct = Struct {
    name: "ManagedFieldsEntry",
    members: &[
        ("manager", STRING),
        ("operation", Type::String("v1.ManagedFieldsOperationType")),
        ("apiVersion", STRING),
        ("time", Type::Time),
        ("fieldsType", STRING),
        ("fieldsV1", Type::Anything),
        ("subresource", STRING),
    ],
};

/// Checks the types of a whole policy. Wrong types are `problems`; members that do not exist are
/// `warnings`: kube-apiserver ignores them.
pub(super) fn check(root: &Node, problems: &mut Problems, warnings: &mut Problems) {
    let mut checker = Checker { path: Vec::new(), within: "Policy", problems, warnings };
    checker.check_struct(root, &POLICY);
}

/// Warns of what would be unknown had the document no `apiVersion`: kube-apiserver then reads the
/// internal version of `Policy`, which has no JSON names.
pub(super) fn check_internal(root: &Node, warnings: &mut Problems) {
    const INTERNAL: [&str; 5] = ["apiVersion", "kind", "Rules", "OmitStages", "OmitManagedFields"];
    for entry in root.entries() {
        let known = INTERNAL.contains(&&*entry.key)
            || OBJECT_META_MEMBERS.iter().any(|(name, _)| *name == &*entry.key);
        if !known {
            let message = format!("unknown field {}", quote(entry.key.as_bytes()));
            warnings.add(entry.key_at, message, None);
        }
    }
}

struct Checker<'c> {
    path: Vec<Segment<'c>>,
    /// The innermost Go struct.
    within: &'static str,
    problems: &'c mut Problems,
    warnings: &'c mut Problems,
}

#[derive(Clone, Copy)]
enum Segment<'c> {
    Member(&'c str),
    Key(&'c str),
    Index(usize),
}

impl<'c> Checker<'c> {
    fn check(&mut self, node: &'c Node, wanted: &'static Type) {
        match (wanted, &node.value) {
            (_, Value::Null) | (Type::Anything, _) => {}
            (Type::String(_), Value::String(_)) | (Type::Bool, Value::Bool(_)) => {}
            (Type::Integer, Value::Number(number)) if is_integer(*number) => {}
            (Type::Time, Value::String(text)) => {
                if OffsetDateTime::parse(text, &Rfc3339).is_err() {
                    let message =
                        format!("failed decoding: parsing time {}", quote(text.as_bytes()));
                    let remedy = "write a time such as \"2006-01-02T15:04:05Z\"";
                    self.problems.add(node.at, message, Some(remedy.into()));
                }
            }
            (Type::List(element), Value::List(nodes)) => {
                for (index, node) in nodes.iter().enumerate() {
                    self.within_segment(Segment::Index(index), |c| c.check(node, element));
                }
            }
            (Type::Map(member), Value::Map(entries)) => {
                for entry in entries.iter() {
                    let key = Segment::Key(&entry.key);
                    self.within_segment(key, |c| c.check(&entry.node, member));
                }
            }
            (Type::Struct(wanted), Value::Map(_)) => self.check_struct(node, wanted),
            _ => self.wrong_type(node, wanted),
        }
    }

    fn check_struct(&mut self, node: &'c Node, wanted: &'static Struct) {
        let around = std::mem::replace(&mut self.within, wanted.name);
        for entry in node.entries() {
            match wanted.members.iter().find(|(name, _)| *name == &*entry.key) {
                Some((name, member)) => {
                    self.within_segment(Segment::Member(name), |c| c.check(&entry.node, member));
                }
                None => {
                    let path = self.within_segment(Segment::Member(&entry.key), |c| c.path());
                    let message = format!("unknown field {}", quote(path.as_bytes()));
                    let remedy = about_unknown(&entry.key, wanted);
                    self.warnings.add(entry.key_at, message, Some(remedy));
                }
            }
        }
        self.within = around;
    }

    fn within_segment<T>(&mut self, segment: Segment<'c>, run: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment);
        let result = run(self);
        self.path.pop();
        result
    }

    fn wrong_type(&mut self, node: &Node, wanted: &Type) {
        let members: Vec<&str> = self
            .path
            .iter()
            .filter_map(|s| if let Segment::Member(name) = s { Some(*name) } else { None })
            .collect();
        let message = format!(
            "{}: failed decoding: json: cannot unmarshal {} into Go struct field {}.{} of type {}",
            self.path(),
            node.value.kind(),
            self.within,
            members.join("."),
            wanted.go_name(),
        );
        self.problems.add(node.at, message, about_wrong(node, wanted));
    }

    fn path(&self) -> String {
        let mut text = String::new();
        for segment in &self.path {
            match segment {
                Segment::Index(index) => text.push_str(&format!("[{index}]")),
                Segment::Member(name) | Segment::Key(name) => {
                    text.push_str(if text.is_empty() { "" } else { "." });
                    text.push_str(name);
                }
            }
        }
        text
    }
}

impl Type {
    fn go_name(&self) -> String {
        match self {
            Type::String(name) => (*name).to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Integer => "int64".to_owned(),
            Type::Time => "v1.Time".to_owned(),
            Type::Anything => "v1.FieldsV1".to_owned(),
            Type::List(element) => format!("[]{}", element.go_name()),
            Type::Map(member) => format!("map[string]{}", member.go_name()),
            Type::Struct(wanted) => format!("v1.{}", wanted.name),
        }
    }
}

/// Whether Go's JSON encoder writes the number without a fraction or an exponent.
fn is_integer(number: Number) -> bool {
    match number {
        Number::Integer(_) => true,
        Number::Large(_) => false,
        Number::Float(value) => value.fract() == 0.0 && value.abs() < i64::MAX as f64,
    }
}

fn about_wrong(node: &Node, wanted: &Type) -> Remedy {
    let plain = node.plain.as_deref().unwrap_or_default();
    let written = if plain.is_empty() { node.text() } else { plain };
    Some(match (wanted, &node.value) {
        (Type::String(_) | Type::Time, Value::Bool(_)) if !matches!(plain, "true" | "false") => {
            format!("quote it: without quotes YAML reads {plain} as a boolean, write \"{plain}\"")
        }
        (Type::String(_) | Type::Time, Value::Bool(_) | Value::Number(_)) => {
            format!("quote it: \"{plain}\"")
        }
        (Type::String(_) | Type::Time, Value::List(_)) => "write one value, no list".to_owned(),
        (Type::String(_) | Type::Time, _) => "write a text here".to_owned(),
        (Type::Bool, Value::String(_)) => "write true or false, without quotes".to_owned(),
        (Type::Bool, _) => "write true or false".to_owned(),
        (Type::Integer, _) => "write an integer".to_owned(),
        (Type::List(Type::String(_)), Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
            format!("write a list: [{}]", quote(written.as_bytes()))
        }
        (Type::List(_), Value::Map(_)) => "write a list: begin each element with \"- \"".to_owned(),
        (Type::List(_), _) => "write a list".to_owned(),
        (Type::Struct(wanted), _) => match wanted.members.first() {
            Some((member, _)) => format!("write members, such as \"{member}: …\""),
            None => "write members".to_owned(),
        },
        (Type::Map(_), _) => "write \"key: value\" pairs".to_owned(),
        (Type::Anything, _) => return None,
    })
}

fn about_unknown(written: &str, within: &Struct) -> String {
    let named = |s: &Struct| s.members.iter().any(|(name, _)| *name == written);
    let names = within.members.iter().map(|(name, _)| *name);
    let advice = if within.name == GROUP_RESOURCES.name && named(&POLICY_RULE) {
        Some("it belongs to the rule: indent it as far as \"resources:\"".to_owned())
    } else if within.name == POLICY.name && named(&POLICY_RULE) {
        Some("it belongs to a rule: indent it as far as \"level:\"".to_owned())
    } else if within.name == POLICY_RULE.name && named(&GROUP_RESOURCES) {
        Some("it belongs to an entry of \"resources:\"".to_owned())
    } else {
        did_you_mean(written, names)
    };
    advice.map_or_else(|| "it is ignored".to_owned(), |advice| format!("it is ignored, {advice}"))
}
