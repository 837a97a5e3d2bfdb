//! How events and reports are shown.

mod field;
pub(crate) mod format;
pub(crate) mod table;

pub use self::field::Field;
