//! Limits how often one message is logged, for messages that clients or a failing server can cause
//! at any rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one message pass in each interval, and counts the others.
pub struct LogLimit {
    interval: Duration,
    state: Mutex<State>,
}

struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// One message in each `interval`.
    pub const fn new(interval: Duration) -> LogLimit {
        LogLimit { interval, state: Mutex::new(State { last: None, suppressed: 0 }) }
    }

    /// Returns whether to log now: the number of messages that were suppressed since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_passes_in_each_interval() {
        let limit = LogLimit::new(Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| limit.pass_at(start + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(59)], [Some(0), None, None]);
        assert_eq!([at(60), at(61), at(121)], [Some(2), None, Some(1)]);
    }
}
