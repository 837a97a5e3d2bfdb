//! Flags that are true or false, with the syntax of kube-apiserver's: `--flag`, `--flag=BOOL`.

use clap::{Arg, ArgAction};

/// Extends [`Arg`] for boolean flags.
pub(super) trait BooleanFlag {
    /// Accepts a value of Go's syntax, and none for `true`.
    fn boolean(self) -> Self;

    /// Accepts a value, and none for `true`. Like in kube-apiserver, the value must follow a `=`:
    /// otherwise `--flag false` would be ambiguous.
    fn optional_value(self) -> Self;
}

impl BooleanFlag for Arg {
    fn boolean(self) -> Arg {
        self.value_name("BOOL").value_parser(parse_bool).optional_value()
    }

    fn optional_value(self) -> Arg {
        self.default_missing_value("true")
            .num_args(0..=1)
            .require_equals(true)
            .action(ArgAction::Set)
    }
}

/// Parses a value like Go's `strconv.ParseBool`, which kube-apiserver uses for its flags.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}
