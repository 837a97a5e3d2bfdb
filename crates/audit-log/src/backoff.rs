//! Exponential backoff with jitter. The same as `ExponentialBackoff` of the crate `api-client`.

use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// Delays that grow by a factor up to a maximum. Each has up to 20% jitter added, so that many
/// proxies do not retry at the same moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ExponentialBackoff {
    initial: Duration,
    factor: f64,
    max: Duration,
    attempt: u32,
}

/// Share of a delay that is added at random.
const JITTER: f64 = 0.2;

impl ExponentialBackoff {
    /// Creates a backoff whose delays start at `initial`, grow by `factor`, and never exceed `max`.
    pub(crate) const fn new(initial: Duration, factor: f64, max: Duration) -> ExponentialBackoff {
        ExponentialBackoff { initial, factor, max, attempt: 0 }
    }

    /// Returns the delay before the next attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.delay(self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        delay
    }

    /// Returns the delay after this attempt, of which 0 is the first.
    pub(crate) fn delay(&self, attempt: u32) -> Duration {
        let mut random = [0];
        // Without randomness the delay has no jitter.
        let _ = SystemRandom::new().fill(&mut random);
        let jitter = f64::from(random[0]) / 255.0 * JITTER;
        let exponent = i32::try_from(attempt.min(64)).unwrap_or(64);
        let grown = self.initial.as_secs_f64() * self.factor.powi(exponent);
        let delay = Duration::try_from_secs_f64(grown * (1.0 + jitter));
        delay.unwrap_or(self.max).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_maximum() {
        let second = Duration::from_secs(1);
        let mut backoff = ExponentialBackoff::new(second, 2.0, second * 10);
        for exact in [1, 2, 4, 8].map(|seconds| second * seconds) {
            let delay = backoff.next_delay();
            assert!(delay >= exact && delay <= exact.mul_f64(1.0 + JITTER), "{delay:?}");
        }
        assert_eq!([backoff.next_delay(), backoff.delay(u32::MAX)], [second * 10; 2]);
        assert!(backoff.delay(0) < second * 2);
    }
}
