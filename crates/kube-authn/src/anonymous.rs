//! Settings for requests without credentials.

/// Which requests may be made without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anonymous {
    /// None: such requests get a 401.
    Nowhere,
    /// All requests.
    Everywhere,
    /// Requests whose decoded path equals one of these.
    Paths(Vec<String>),
}

impl Anonymous {
    /// Returns whether a request to `path` may be anonymous.
    pub fn allows(&self, path: &[u8]) -> bool {
        match self {
            Anonymous::Nowhere => false,
            Anonymous::Everywhere => true,
            Anonymous::Paths(paths) => paths.iter().any(|allowed| allowed.as_bytes() == path),
        }
    }
}

impl From<bool> for Anonymous {
    fn from(everywhere: bool) -> Anonymous {
        if everywhere { Anonymous::Everywhere } else { Anonymous::Nowhere }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_equal_or_not() {
        let some = Anonymous::Paths(vec!["/livez".into(), "/readyz".into()]);
        for (path, expected) in [
            ("/livez", true),
            ("/readyz", true),
            ("/livez/", false),
            ("/livez/ping", false),
            ("/LIVEZ", false),
            ("/api/v1/pods", false),
            ("", false),
        ] {
            assert_eq!(some.allows(path.as_bytes()), expected, "{path}");
            assert!(Anonymous::Everywhere.allows(path.as_bytes()));
            assert!(!Anonymous::Nowhere.allows(path.as_bytes()));
        }
    }
}
