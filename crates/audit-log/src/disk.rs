//! Changes to files that matter for recovery: each is one step that a crash can come before.
//!
//! In tests a step can fail, or be the last before the process "is killed": every later step then
//! fails, as if nothing were written any more. That is how the property test of the seal explores a
//! crash between any two changes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Renames a file.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
    fs::rename(from, to)
}

/// Deletes a file.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    step()?;
    fs::remove_file(path)
}

/// Deletes a file if it exists.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Appends to a file, or writes part of it and fails.
pub(super) fn append(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    if let Err(error) = step() {
        // A crash can leave a part.
        if faults::is_torn() {
            let _ = file.write_all(&bytes[..bytes.len() / 2]);
        }
        return Err(error);
    }
    file.write_all(bytes)
}

/// Precedes a change that is made elsewhere. Costs nothing outside of tests.
#[inline]
pub(super) fn step() -> io::Result<()> {
    #[cfg(test)]
    faults::step()?;
    Ok(())
}

/// Which steps fail, for each thread.
#[cfg(test)]
pub(super) mod faults {
    use std::cell::Cell;
    use std::io;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Fault {
        None,
        /// One step fails after this many.
        Once(u32),
        /// All steps fail after this many.
        Crash(u32),
        /// Like `Crash`, and the step that it comes at is an append that leaves a part.
        Torn(u32),
        /// All fail.
        Dead,
    }

    thread_local! {
        static NEXT: Cell<Fault> = const { Cell::new(Fault::None) };
        static TORN: Cell<bool> = const { Cell::new(false) };
    }

    /// Has the steps of this thread fail from now on.
    pub(crate) fn set(fault: Fault) {
        NEXT.set(fault);
        TORN.set(false);
    }

    /// Returns whether the "process" has been killed.
    pub(crate) fn is_dead() -> bool {
        NEXT.get() == Fault::Dead
    }

    pub(super) fn is_torn() -> bool {
        TORN.take()
    }

    pub(super) fn step() -> io::Result<()> {
        let (next, fails) = match NEXT.get() {
            Fault::None => (Fault::None, false),
            Fault::Once(0) => (Fault::None, true),
            Fault::Once(left) => (Fault::Once(left - 1), false),
            Fault::Crash(0) | Fault::Dead => (Fault::Dead, true),
            Fault::Crash(left) => (Fault::Crash(left - 1), false),
            Fault::Torn(0) => {
                TORN.set(true);
                (Fault::Dead, true)
            }
            Fault::Torn(left) => (Fault::Torn(left - 1), false),
        };
        NEXT.set(next);
        if fails { Err(io::Error::other("fault of the test")) } else { Ok(()) }
    }
}
