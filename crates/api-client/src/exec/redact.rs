//! Removes secrets from the messages of a plugin before they are logged.

use http::HeaderValue;

const REDACTED: &str = "[redacted]";
/// A word of standard error that is at least this long and also in standard output is a secret.
const SECRET: usize = 8;
/// How tokens begin that well-known plugins return: JSON Web Tokens, and those of
/// aws-iam-authenticator.
const TOKENS: [&str; 2] = ["eyJ", "k8s-aws-v1."];

/// Returns the lines of `stderr` in which words are replaced that are secrets: the token,
/// everything that is also in `stdout`, and what looks like a token.
pub(super) fn redact(stderr: &[u8], stdout: &[u8], token: Option<&HeaderValue>) -> Vec<String> {
    let stdout = String::from_utf8_lossy(stdout);
    let token = token.and_then(|header| header.to_str().ok()).unwrap_or_default();
    let token = token.strip_prefix("Bearer ").unwrap_or_default();
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().map(|line| line.trim_end()).filter(|line| !line.is_empty());
    lines.map(|line| redact_line(line, &stdout, token)).collect()
}

fn redact_line(line: &str, stdout: &str, token: &str) -> String {
    let line = if token.is_empty() { line.to_owned() } else { line.replace(token, REDACTED) };
    let mut redacted = String::with_capacity(line.len());
    for word in line.split_inclusive(is_delimiter) {
        let bare = word.trim_end_matches(is_delimiter);
        let is_returned = bare.len() >= SECRET && stdout.contains(bare) && !is_vocabulary(bare);
        let looks_secret = TOKENS.iter().any(|prefix| bare.starts_with(prefix));
        if is_returned || looks_secret {
            redacted.push_str(REDACTED);
            redacted.push_str(&word[bare.len()..]);
        } else {
            redacted.push_str(word);
        }
    }
    // Control characters would let a plugin forge log lines.
    redacted.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn is_delimiter(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '"' | '\'' | ',' | ':' | '=' | '{' | '}' | '[' | ']' | '(' | ')')
}

/// Words of the protocol itself.
fn is_vocabulary(word: &str) -> bool {
    let words = ["ExecCredential", "expirationTimestamp", "apiVersion", "clientCertificateData"];
    words.contains(&word) || word.starts_with("client.authentication.k8s.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_and_the_rest_stays() {
        let stdout = br#"{"kind":"ExecCredential","status":{"token":"0123456789abc"}}"#;
        let stderr = b"using token=0123456789abc for \x1b[1mme\n\nfailed: \"eyJhbGciOi.e30.x\"\n\
                       ExecCredential of k8s-aws-v1.aHR0cHM\nplain words stay\n";
        let lines = redact(stderr, stdout, None);
        assert_eq!(
            lines,
            [
                "using token=[redacted] for  [1mme",
                "failed: \"[redacted]\"",
                "ExecCredential of [redacted]",
                "plain words stay",
            ]
        );
        let token = HeaderValue::from_static("Bearer s3");
        assert_eq!(redact(b"is=s3s3", b"", Some(&token)), ["is=[redacted][redacted]"]);
    }
}
