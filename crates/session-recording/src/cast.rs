//! Writes asciicast v2: a header, and one line per event.
//!
//! The first line is the header with the usual members and `kubeAuditProxy`, a [`Description`].
//! Each further line is `[seconds, code, data]`. Codes of the format: `o` (output), `i` (input),
//! `r` (size, as `80x24`), `m` (a marker). Codes that are only read here, and skipped by players:
//!
//! | code | data |
//! |---|---|
//! | `e` | `stderr`: the next `o` is from standard error |
//! | `b` | base64 of the exact bytes of the next `o` or `i`, which is not UTF-8 |
//! | `B` | `stdin`, `stdout` or `stderr`, a space, and base64: bytes that are shown nowhere |
//! | `x` | the exit code |
//! | `s` | the summary, always the last line: a JSON object ([`Summary`]) |

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::Stream;
use crate::escape::push_escaped;

/// A user in a description.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedUser {
    /// User name.
    pub username: String,
    /// Groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// The context of a session: the member `kubeAuditProxy` of the header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Description {
    /// The ID of the audit event.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// When the request was received (RFC 3339).
    pub start: String,
    /// `exec`, `attach` or `portforward`
    pub activity: String,
    /// The authenticated user.
    pub user: RecordedUser,
    /// The effective user, if the user is impersonated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<RecordedUser>,
    /// The namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container, if the request names one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The command with its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Ports that the request names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Whether there is a terminal.
    pub tty: bool,
    /// Whether there is a standard input.
    pub stdin: bool,
    /// Whether input is recorded.
    pub records_input: bool,
    /// The client's addresses.
    #[serde(rename = "sourceIPs")]
    pub source_ips: Vec<String>,
    /// The client.
    pub user_agent: String,
}

/// The summary of a stream at the end of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSummary {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of all of it, in hexadecimal, if its content is not recorded because it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// SHA-256 of the part after the recorded one, if the recording reached its maximum size.
    #[serde(default, rename = "restSha256", skip_serializing_if = "Option::is_none")]
    pub rest_sha256: Option<String>,
    /// `all`, `part` or `none`: how much of the content is in the recording.
    pub recorded: String,
}

/// The summary of a session: the data of the last line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// When the session ended (RFC 3339).
    pub end: String,
    /// Duration in seconds.
    pub duration: f64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// The exit code of the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The failure that the API server reported at the end.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<StreamSummary>,
    /// Standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StreamSummary>,
    /// Standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<StreamSummary>,
    /// Ports to which connections were forwarded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Why the recording is not complete.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub incomplete: String,
    /// The recording was salvaged after the proxy ended abruptly.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub salvaged: bool,
}

impl Summary {
    /// Returns the streams whose content is not in the recording, or only in part. Input is not
    /// included unless it is to be recorded (`records_input`).
    pub fn omitted(&self, records_input: bool) -> Vec<&'static str> {
        let streams = [
            (Stream::Stdin, self.stdin.as_ref().filter(|_| records_input)),
            (Stream::Stdout, self.stdout.as_ref()),
            (Stream::Stderr, self.stderr.as_ref()),
        ];
        let is_omitted =
            |stream: &Option<&StreamSummary>| stream.is_some_and(|stream| stream.recorded != "all");
        let omitted = streams.into_iter().filter(|(_, stream)| is_omitted(stream));
        omitted.map(|(stream, _)| stream_name(stream)).collect()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    version: u8,
    width: u16,
    height: u16,
    timestamp: i64,
    title: String,
    kube_audit_proxy: &'a Description,
}

/// Encodes the lines of a recording.
#[derive(Debug, Default)]
pub struct CastEncoder {
    /// Bytes of each stream that may be the start of a character.
    pending: [Vec<u8>; 3],
    /// The stream of the current line, which is not ended yet.
    open: Option<Stream>,
}

impl CastEncoder {
    /// Appends the header. `timestamp`: the start, in seconds since 1970.
    pub fn header(description: &Description, timestamp: i64, out: &mut Vec<u8>) {
        let Description { user, namespace, pod, activity, .. } = description;
        let header = Header {
            version: 2,
            width: 80,
            height: 24,
            timestamp,
            title: format!("{activity} {namespace}/{pod} by {}", user.username),
            kube_audit_proxy: description,
        };
        push_json(&header, out);
        out.push(b'\n');
    }

    /// Appends data of a stream. A character is held back until all its bytes have come. The line
    /// may be continued by more data of the stream, until [`CastEncoder::end_line`].
    pub fn data(&mut self, at: Duration, stream: Stream, mut bytes: &[u8], out: &mut Vec<u8>) {
        if !self.pending[stream as usize].is_empty() {
            let mut character = std::mem::take(&mut self.pending[stream as usize]);
            while let Some((next, rest)) = bytes.split_first()
                && is_incomplete(&character)
            {
                character.push(*next);
                bytes = rest;
            }
            match std::str::from_utf8(&character) {
                Ok(_) => self.shown(at, stream, &character, out),
                Err(_) if is_incomplete(&character) => {
                    self.pending[stream as usize] = character;
                    return;
                }
                Err(_) => {
                    character.extend_from_slice(bytes);
                    return self.text_or_exact(at, stream, &character, out);
                }
            }
        }
        self.text_or_exact(at, stream, bytes, out);
    }

    fn text_or_exact(&mut self, at: Duration, stream: Stream, bytes: &[u8], out: &mut Vec<u8>) {
        let complete = match std::str::from_utf8(bytes) {
            Ok(_) => bytes.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return self.exact(at, stream, bytes, out),
        };
        let (text, rest) = bytes.split_at(complete);
        if !text.is_empty() {
            self.shown(at, stream, text, out);
        }
        self.pending[stream as usize].extend_from_slice(rest);
    }

    /// Appends data of a stream that is not text.
    pub fn binary(&mut self, at: Duration, stream: Stream, bytes: &[u8], out: &mut Vec<u8>) {
        let mut data = format!("{} ", stream_name(stream));
        STANDARD.encode_string(bytes, &mut data);
        self.line(at, "B", &data, out);
    }

    /// Appends a line of any code.
    pub fn line(&mut self, at: Duration, code: &str, data: &str, out: &mut Vec<u8>) {
        self.end_line(out);
        line(at, code, data, out);
    }

    /// Ends the line of the data, if there is one.
    pub fn end_line(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            out.extend_from_slice(b"\"]\n");
        }
    }

    /// Appends what was held back.
    pub fn finish(&mut self, at: Duration, out: &mut Vec<u8>) {
        for stream in [Stream::Stdin, Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.pending[stream as usize]);
            if !rest.is_empty() {
                self.exact(at, stream, &rest, out);
            }
        }
        self.end_line(out);
    }

    fn exact(&mut self, at: Duration, stream: Stream, bytes: &[u8], out: &mut Vec<u8>) {
        self.line(at, "b", &STANDARD.encode(bytes), out);
        self.shown(at, stream, String::from_utf8_lossy(bytes).as_bytes(), out);
        self.end_line(out);
    }

    fn shown(&mut self, at: Duration, stream: Stream, text: &[u8], out: &mut Vec<u8>) {
        if self.open != Some(stream) {
            self.end_line(out);
            if stream == Stream::Stderr {
                line(at, "e", "stderr", out);
            }
            let code = if stream == Stream::Stdin { "i" } else { "o" };
            begin_line(at, code, out);
            self.open = Some(stream);
        }
        push_escaped(text, out);
    }
}

/// Returns whether bytes are the start of a character whose end is missing.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

fn line(at: Duration, code: &str, data: &str, out: &mut Vec<u8>) {
    begin_line(at, code, out);
    push_escaped(data.as_bytes(), out);
    out.extend_from_slice(b"\"]\n");
}

fn begin_line(at: Duration, code: &str, out: &mut Vec<u8>) {
    use std::io::Write;
    // Writing to a Vec does not fail.
    let _ = write!(out, "[{}.{:06}, \"{code}\", \"", at.as_secs(), at.subsec_micros());
}

/// Appends the summary.
pub fn summary(at: Duration, summary: &Summary, out: &mut Vec<u8>) {
    let mut data = Vec::new();
    push_json(summary, &mut data);
    line(at, "s", &String::from_utf8_lossy(&data), out);
}

/// Returns the name of a stream.
pub fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdin => "stdin",
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

fn push_json(value: &impl Serialize, out: &mut Vec<u8>) {
    // Neither writing to a Vec nor these types fail.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_micros(1_250_000);

    #[test]
    fn events_are_lines_of_three_elements() {
        let (mut encoder, mut out) = (CastEncoder::default(), Vec::new());
        encoder.data(AT, Stream::Stdout, b"a\"\x1b[1m\r\n", &mut out);
        encoder.data(AT, Stream::Stdout, b"b", &mut out);
        encoder.data(AT, Stream::Stderr, b"no", &mut out);
        encoder.end_line(&mut out);
        let expected = "[1.250000, \"o\", \"a\\\"\\u001b[1m\\r\\nb\"]\n\
                        [1.250000, \"e\", \"stderr\"]\n[1.250000, \"o\", \"no\"]\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn characters_are_not_split_and_other_bytes_are_exact() {
        let (mut encoder, mut out) = (CastEncoder::default(), Vec::new());
        let euro = "€".as_bytes();
        encoder.data(AT, Stream::Stdout, &euro[..1], &mut out);
        assert!(out.is_empty());
        encoder.data(AT, Stream::Stdout, &euro[1..], &mut out);
        encoder.end_line(&mut out);
        assert_eq!(out, "[1.250000, \"o\", \"€\"]\n".as_bytes());
        out.clear();
        encoder.data(AT, Stream::Stdout, b"\xffx", &mut out);
        let expected = "[1.250000, \"b\", \"/3g=\"]\n[1.250000, \"o\", \"\u{fffd}x\"]\n";
        assert_eq!(String::from_utf8(std::mem::take(&mut out)).unwrap(), expected);
        encoder.data(AT, Stream::Stdin, &euro[..2], &mut out);
        encoder.finish(AT, &mut out);
        let expected = "[1.250000, \"b\", \"4oI=\"]\n[1.250000, \"i\", \"\u{fffd}\"]\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
