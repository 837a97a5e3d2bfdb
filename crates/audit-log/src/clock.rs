//! The wall clock. It determines the names of rotated files and their age.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// The system's clock, or a fixed one in tests.
#[derive(Clone)]
pub(super) struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    pub(super) fn system() -> Clock {
        Clock(Arc::new(SystemTime::now))
    }

    #[cfg(test)]
    pub(super) fn fixed(time: SystemTime) -> Clock {
        Clock(Arc::new(move || time))
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({:?})", self.now())
    }
}
