//! `EventList`, the body of a request to the endpoint.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Line;
use crate::delivery::Format;

/// The storage format of batches in the spool.
pub(crate) const FORMAT: Format =
    Format { extension: "json", items, join: of_items, is_valid: is_list };

const HEAD: &[u8] =
    b"{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},\"items\":[";

/// The beginning of each log line that is omitted in the items of a list.
const ITEM: &[u8] = b"\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",";

/// Returns the list of these JSON lines, with a final newline like kube-apiserver's.
pub(crate) fn encode(lines: &[Line]) -> Vec<u8> {
    let length: usize = lines.iter().map(|line| line.len() + 1).sum();
    let mut list = Vec::with_capacity(HEAD.len() + length + 4);
    list.extend_from_slice(HEAD);
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            list.push(b',');
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        match line.strip_prefix(b"{").and_then(|line| line.strip_prefix(ITEM)) {
            Some(members) => {
                list.push(b'{');
                list.extend_from_slice(members);
            }
            None => list.extend_from_slice(line),
        }
    }
    list.extend_from_slice(b"]}\n");
    list
}

/// Returns the list of items returned by [`items`].
fn of_items(items: &[&[u8]]) -> Vec<u8> {
    let length: usize = items.iter().map(|item| item.len() + 1).sum();
    let mut list = Vec::with_capacity(HEAD.len() + length + 4);
    list.extend_from_slice(HEAD);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            list.push(b',');
        }
        list.extend_from_slice(item);
    }
    list.extend_from_slice(b"]}\n");
    list
}

/// Returns the items of a list, or `None` if `list` is not an `EventList`.
pub(crate) fn items(list: &[u8]) -> Option<Vec<&[u8]>> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }
    let list: List<'_> = serde_json::from_slice(list).ok()?;
    Some(list.items.into_iter().map(|item| item.get().as_bytes()).collect())
}

/// Returns whether `content` begins and ends like a list.
fn is_list(content: &[u8]) -> bool {
    content.starts_with(HEAD) && content.ends_with(b"]}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_a_lists_items_is_the_same() {
        let lines =
            ["{\"a\":1}\n", "{\"b\": \"]}\"}\n"].map(|line| line.as_bytes().to_vec().into());
        let list = encode(&lines);
        assert!(is_list(&list));
        let parts = items(&list).unwrap();
        assert_eq!((parts.len(), of_items(&parts)), (2, list.clone()));
        assert_eq!(items(&of_items(&parts[1..])).unwrap()[0], b"{\"b\": \"]}\"}");
        assert!(items(b"nothing").is_none() && !is_list(b"nothing"));
    }

    #[test]
    fn items_have_neither_kind_nor_version() {
        let line = |id: &str| {
            let members = format!("\"level\":\"Metadata\",\"auditID\":\"{id}\"");
            format!("{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",{members}}}\n")
                .into_bytes()
                .into()
        };
        let list = encode(&[line("a"), line("b")]);
        let expected = "{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},\"items\":[{\"level\":\"Metadata\",\"auditID\":\"a\"},{\"level\":\"Metadata\",\"auditID\":\"b\"}]}\n";
        assert_eq!(String::from_utf8(list).unwrap(), expected);
    }
}
