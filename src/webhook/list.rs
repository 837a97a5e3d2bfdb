//! `EventList`, the body of a request to the receiver.

use crate::sink::Line;

const HEAD: &[u8] =
    b"{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},\"items\":[";

/// What each line of the log begins with, and an item of a list does not.
const ITEM: &[u8] = b"\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",";

/// The list of these lines of JSON, with the newline that kube-apiserver ends it with.
pub(super) fn encode(lines: &[Line]) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
