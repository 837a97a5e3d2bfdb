//! Errors as the program prints them.

/// Formats an error and its causes on one line.
///
/// Most errors already contain the text of their cause, so a cause that was printed is left out.
pub(super) fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read /nowhere: {source}")]
    struct Read {
        source: io::Error,
    }

    #[test]
    fn each_cause_is_printed_once() {
        let read = || Read { source: io::Error::other("no such file") };
        let error = anyhow::Error::from(read());
        assert_eq!(describe(&error), "cannot read /nowhere: no such file");
        let error = Err::<(), _>(read()).context("--client-ca-file").unwrap_err();
        assert_eq!(describe(&error), "--client-ca-file: cannot read /nowhere: no such file");
        let error = Err::<(), _>(io::Error::other("no such file")).context("TLS").unwrap_err();
        assert_eq!(describe(&error), "TLS: no such file");
    }
}
