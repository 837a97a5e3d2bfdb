//! The paths of `managedFields` for `omitManagedFields`.

use std::sync::LazyLock;

use super::paths::{Names, Path, Paths, Place};

/// What to do with the value at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Leave out this member, which is `managedFields`.
    Omit,
    /// This is the object's `kind`, on which further paths depend; see [`place_for_kind`].
    Kind,
}

/// The paths for objects, each below the name of its purpose, so that one tree contains them all.
///
/// `items` counts for every `kind`: kube-apiserver treats any object with a list of items as a
/// list, and lists of custom resources have `items` before `kind`. `rows` counts only in a `Table`.
static PATHS: LazyLock<Paths<Action>> = LazyLock::new(|| {
    let path = |text: &str, action| (text.parse::<Path>().expect("a valid path"), action);
    Paths::new(
        &[
            path("object.kind", Action::Kind),
            path("object.metadata.managedFields", Action::Omit),
            path("object.items[*].metadata.managedFields", Action::Omit),
            path("table.kind", Action::Kind),
            path("table.metadata.managedFields", Action::Omit),
            path("table.rows[*].object.metadata.managedFields", Action::Omit),
            path("unchanged.kind", Action::Kind),
        ],
        Names::Exact,
    )
});

/// Returns the paths to follow, starting at the node [`object`].
pub(super) fn paths() -> &'static Paths<Action> {
    &PATHS
}

/// Returns the node for an object whose kind is not known yet.
pub(super) fn object() -> Place {
    PATHS.member(Place::ROOT, b"object")
}

/// Returns the node for an object of `kind`.
pub(super) fn place_for_kind(kind: &[u8]) -> Place {
    let start: &[u8] = match kind {
        b"Table" => b"table",
        b"Status" | b"DeleteOptions" => b"unchanged",
        _ => b"object",
    };
    PATHS.member(Place::ROOT, start)
}
