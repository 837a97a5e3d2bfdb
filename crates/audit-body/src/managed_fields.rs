//! Where `omitManagedFields` finds what it omits.

use std::sync::LazyLock;

use super::paths::{Names, Path, Paths, Place};

/// What to do at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// This member is `managedFields`: leave it out.
    Omit,
    /// This is the object's `kind`, which says where else to look; see [`place_for_kind`].
    Kind,
}

/// The paths for objects, each below the name of what it is for, so that one tree has them all.
///
/// `items` counts whatever the `kind`: as for kube-apiserver, an object with a list of items is a
/// list, and custom resources' lists have `items` before `kind`. `rows` counts in a `Table` only.
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

/// The paths to follow in an object whose members are walked from [`object`] on.
pub(super) fn paths() -> &'static Paths<Action> {
    &PATHS
}

/// Where an object starts, its kind not yet known.
pub(super) fn object() -> Place {
    PATHS.member(Place::ROOT, b"object")
}

/// Where an object is that turned out to be of `kind`.
pub(super) fn place_for_kind(kind: &[u8]) -> Place {
    let start: &[u8] = match kind {
        b"Table" => b"table",
        b"Status" | b"DeleteOptions" => b"unchanged",
        _ => b"object",
    };
    PATHS.member(Place::ROOT, start)
}
