//! File operations that recovery depends on. A crash can happen before each of them.
//!
//! In tests an operation can fail, or the process can be "killed" before it: all later operations
//! then fail, as if nothing were written any more. The property test of the seal simulates crashes
//! between any two operations this way.
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
        // A crash can leave a part of the bytes.
        if faults::is_torn() {
            let _ = file.write_all(&bytes[..bytes.len() / 2]);
        }
        return Err(error);
    }
    file.write_all(bytes)
}

/// Marks an operation that is implemented elsewhere. Free outside of tests.
#[inline]
pub(super) fn step() -> io::Result<()> {
    #[cfg(test)]
    faults::step()?;
    Ok(())
}

/// Failing operations of the current thread.
#[cfg(test)]
pub(super) mod faults {
    use std::cell::Cell;
    use std::io;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Fault {
        None,
        /// One operation fails after this many.
        Once(u32),
        /// All operations fail after this many.
        Crash(u32),
        /// Like `Crash`, but if the operation is an append, it writes a part of the bytes.
        Torn(u32),
        /// All operations fail.
        Dead,
    }

    thread_local! {
        static NEXT: Cell<Fault> = const { Cell::new(Fault::None) };
        static TORN: Cell<bool> = const { Cell::new(false) };
    }

    /// Sets the failing operations of this thread.
    pub(crate) fn set(fault: Fault) {
        NEXT.set(fault);
        TORN.set(false);
    }

    /// Returns whether the process was "killed".
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
