//! The JSON of a YAML value, as `sigs.k8s.io/yaml` makes it.

use k8s_audit::document::scalar::Scalar;

use super::Error;
use super::value::{Key, Mapping, Value, ValueId, Values, text};
use crate::decode::ambiguity::Ambiguity;
use crate::decode::number::push_float;
use k8s_audit::json::push_string;

/// Deeper JSON is refused by the decoder that reads it next.
const MAX_DEPTH: usize = 10_000;

/// The most JSON that a document is expanded to. kube-apiserver reads at most 3 MiB of YAML, and a
/// byte of it is at most six bytes of JSON, unless aliases repeat it.
const MAX_LENGTH: usize = 24 << 20;

/// Names and values.
type Members = Vec<(Vec<u8>, ValueId)>;

/// What is left to write of a value.
enum Part {
    Value(ValueId),
    /// The members of a mapping, the next one last.
    Members(Members, bool),
    /// The elements of a sequence from this one on.
    Elements(ValueId, usize),
}

/// Writes the JSON of a value; keys are sorted.
pub(super) fn to_json(values: &mut Values<'_>, root: ValueId) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let mut parts = vec![Part::Value(root)];
    while let Some(part) = parts.pop() {
        if parts.len() >= MAX_DEPTH {
            return Err(Error("exceeded max depth"));
        }
        if out.len() > MAX_LENGTH {
            return Err(Error("its aliases expand to more than 24 MiB"));
        }
        match part {
            Part::Value(id) => match &values.values[id as usize] {
                Value::Scalar(resolved, node) => match resolved {
                    Scalar::Null => out.extend_from_slice(b"null"),
                    Scalar::Bool(true) => out.extend_from_slice(b"true"),
                    Scalar::Bool(false) => out.extend_from_slice(b"false"),
                    Scalar::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
                    Scalar::Uint(number) => out.extend_from_slice(number.to_string().as_bytes()),
                    Scalar::Float(number) => {
                        push_float(&mut out, *number).ok_or(Error("unsupported value"))?;
                    }
                    Scalar::Text => push_string(&mut out, text(values.document, *node)),
                    Scalar::Binary(bytes) => push_string(&mut out, bytes),
                },
                Value::Sequence(_) => {
                    out.push(b'[');
                    parts.push(Part::Elements(id, 0));
                }
                Value::Mapping(mapping) => {
                    let (members, hidden) = members(mapping)?;
                    if !hidden.is_empty() {
                        check_keys(values, hidden)?;
                        values.ambiguities.insert(Ambiguity::CollidingKeys);
                    }
                    out.push(b'{');
                    parts.push(Part::Members(members, true));
                }
            },
            Part::Members(mut members, first) => match members.pop() {
                None => out.push(b'}'),
                Some((key, value)) => {
                    if !first {
                        out.push(b',');
                    }
                    push_string(&mut out, &key);
                    out.push(b':');
                    parts.push(Part::Members(members, false));
                    parts.push(Part::Value(value));
                }
            },
            Part::Elements(id, next) => {
                let Value::Sequence(elements) = &values.values[id as usize] else { continue };
                match elements.get(next) {
                    None => out.push(b']'),
                    Some(element) => {
                        if next > 0 {
                            out.push(b',');
                        }
                        parts.push(Part::Elements(id, next + 1));
                        parts.push(Part::Value(*element));
                    }
                }
            }
        }
    }
    Ok(out)
}

/// The members of a mapping by their JSON names, in reverse order; and the values of those that
/// others with the same name hide.
fn members(mapping: &Mapping) -> Result<(Members, Vec<ValueId>), Error> {
    let named = |(key, value): &(Key, ValueId)| Ok((name(key)?, *value));
    let mut members = mapping.entries.iter().map(named).collect::<Result<Vec<_>, Error>>()?;
    members.sort_by(|(left, _), (right, _)| right.cmp(left));
    let mut hidden = Vec::new();
    members.dedup_by(|(left, value), (right, _)| {
        let same = left == right;
        if same {
            hidden.push(*value);
        }
        same
    });
    Ok((members, hidden))
}

/// Checks the keys in values that are not written: Go converts them, too.
fn check_keys(values: &Values<'_>, mut left: Vec<ValueId>) -> Result<(), Error> {
    while let Some(id) = left.pop() {
        match &values.values[id as usize] {
            Value::Scalar(..) => {}
            Value::Sequence(elements) => left.extend(elements),
            Value::Mapping(mapping) => {
                for (key, value) in &mapping.entries {
                    name(key)?;
                    left.push(*value);
                }
            }
        }
    }
    Ok(())
}

fn name(key: &Key) -> Result<Vec<u8>, Error> {
    Ok(match key {
        Key::Text(text) => text.clone(),
        Key::Bool(value) => value.to_string().into_bytes(),
        Key::Int(number) => number.to_string().into_bytes(),
        Key::Float(bits) => float_name(f64::from_bits(*bits)).into_bytes(),
        Key::Nan(_) => b".nan".to_vec(),
        Key::Null | Key::Uint(_) => return Err(Error("unsupported map key")),
    })
}

/// Go's `FormatFloat(number, 'g', -1, 32)`.
fn float_name(number: f64) -> String {
    let number = number as f32;
    if number.is_infinite() {
        return if number > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number == 0.0 || (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::float_name;

    #[test]
    fn numbers_are_named_like_go_formats_them() {
        for (number, expected) in [
            (2.5, "2.5"),
            (0.0, "0"),
            (1e6, "1e+06"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.234567e+06"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (0.1, "0.1"),
            (1.5e10, "1.5e+10"),
            (f64::INFINITY, ".inf"),
            (1e300, ".inf"),
        ] {
            assert_eq!(float_name(number), expected);
        }
    }
}
