//! Exponential backoff with jitter.

use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// Delays that grow by a factor up to a maximum. Each has up to 20% jitter added, so that many
/// proxies do not retry at the same moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExponentialBackoff {
    initial: Duration,
    factor: f64,
    max: Duration,
    attempt: u32,
}

/// Share of a delay that is added at random.
const JITTER: f64 = 0.2;

impl ExponentialBackoff {
    /// Creates a backoff whose delays start at `initial`, grow by `factor`, and never exceed `max`.
    pub const fn new(initial: Duration, factor: f64, max: Duration) -> ExponentialBackoff {
        ExponentialBackoff { initial, factor, max, attempt: 0 }
    }

    /// Returns the delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.delay(self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        delay
    }

    /// Returns the delay after `attempt` failed attempts before this one; `0` is the first delay.
    pub fn delay(&self, attempt: u32) -> Duration {
        let mut random = [0];
        // Without randomness the delay has no jitter.
        let _ = SystemRandom::new().fill(&mut random);
        self.delay_with(attempt, f64::from(random[0]) / 255.0)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    fn delay_with(&self, attempt: u32, random: f64) -> Duration {
        let exponent = i32::try_from(attempt.min(64)).unwrap_or(64);
        let grown = self.initial.as_secs_f64() * self.factor.powi(exponent);
        let delay = grown * (1.0 + random * JITTER);
        Duration::try_from_secs_f64(delay).unwrap_or(self.max).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_grow_to_the_maximum_and_start_over() {
        let mut backoff = ExponentialBackoff::new(SECOND, 2.0, SECOND * 10);
        let exact = |attempt| backoff.delay_with(attempt, 0.0);
        assert_eq!([exact(0), exact(1), exact(2)], [SECOND, SECOND * 2, SECOND * 4]);
        assert_eq!([exact(4), exact(u32::MAX)], [SECOND * 10; 2]);
        assert_eq!(backoff.delay_with(0, 1.0), SECOND.mul_f64(1.2));
        for _ in 0..10 {
            backoff.next_delay();
        }
        assert_eq!(backoff.next_delay(), SECOND * 10);
        backoff.reset();
        assert!(backoff.next_delay() < SECOND * 2);
    }
}
