//! What an error of the client means for the batch.

use audit_log::DeliveryError;
use krafka::ProtocolErrorKind;
use krafka::error::{ErrorCode, KrafkaError};

use super::settings::KafkaSettings;

/// What the client did when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It connected, authenticated, and asked for a producer ID.
    Connect,
    /// It sent records.
    Produce,
    /// It asked for the topic.
    Describe,
}

/// Returns what `error` means for a batch of so many events.
///
/// A problem of the cluster, the network or the settings never loses an event: the batch is sent
/// again until an operator has corrected it. Only events that brokers cannot store are rejected,
/// alone: a batch that contains others is halved first.
pub(super) fn delivery_error(
    error: &KrafkaError,
    step: Step,
    settings: &KafkaSettings,
    events: u64,
) -> DeliveryError {
    match error {
        KrafkaError::Protocol { kind: ProtocolErrorKind::FrameTooLarge, .. } => alone(
            events,
            format!(
                "an event or a request is larger than max-request-size, {} bytes",
                settings.max_request_size
            ),
        ),
        KrafkaError::Broker {
            code: ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge,
            ..
        } => alone(
            events,
            format!(
                "topic {} does not accept so large a record; raise the topic's max.message.bytes \
                 and the brokers' message.max.bytes, or record smaller bodies",
                settings.topic
            ),
        ),
        KrafkaError::Broker {
            code: ErrorCode::InvalidRecord | ErrorCode::CorruptMessage | ErrorCode::InvalidTimestamp,
            ..
        } => alone(events, format!("the broker rejects a record: {error}")),
        _ => unavailable(reason(error, step, settings)),
    }
}

/// The problem is in one event: the others are to be delivered without it.
fn alone(events: u64, reason: String) -> DeliveryError {
    match events {
        0 | 1 => DeliveryError::Rejected(reason),
        _ => DeliveryError::TooLarge(reason),
    }
}

fn unavailable(reason: String) -> DeliveryError {
    DeliveryError::Unavailable { reason, retry_after: None }
}

fn reason(error: &KrafkaError, step: Step, settings: &KafkaSettings) -> String {
    let topic = &settings.topic;
    let missing = || format!("topic {topic} does not exist; create it, or correct `topic`");
    match error {
        KrafkaError::UnknownTopic { .. } => missing(),
        KrafkaError::Auth { .. } if settings.sasl.is_some() => format!(
            "the brokers do not accept the connection: {error}; check user, password or token, \
             sasl-mechanism and certificates"
        ),
        KrafkaError::Auth { .. } => {
            format!("the brokers do not accept the connection: {error}; check the certificates")
        }
        KrafkaError::Broker { code, .. } => match code {
            ErrorCode::UnknownTopicOrPartition => missing(),
            ErrorCode::TopicAuthorizationFailed => format!(
                "the brokers deny access to topic {topic}; allow this user WRITE and DESCRIBE on it"
            ),
            ErrorCode::ClusterAuthorizationFailed => format!(
                "the brokers deny a producer ID ({error}); allow this user WRITE on topic {topic} \
                 or, before Kafka 2.8, IDEMPOTENT_WRITE on the cluster"
            ),
            ErrorCode::SaslAuthenticationFailed
            | ErrorCode::UnsupportedSaslMechanism
            | ErrorCode::IllegalSaslState => format!(
                "the brokers reject the authentication: {error}; check sasl-mechanism, user, and \
                 password or token"
            ),
            ErrorCode::UnsupportedCompressionType => format!(
                "topic {topic} does not accept this compression; set `compression` to one that \
                 its brokers support"
            ),
            ErrorCode::NotEnoughReplicas | ErrorCode::NotEnoughReplicasAfterAppend => format!(
                "topic {topic} has fewer in-sync replicas than its min.insync.replicas: {error}"
            ),
            _ => error.to_string(),
        },
        _ => match step {
            Step::Connect => format!("cannot connect to {}: {error}", settings.brokers.join(",")),
            Step::Produce | Step::Describe => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(error: &KrafkaError, events: u64) -> (&'static str, String) {
        let settings = KafkaSettings::new(vec!["kafka:9092".to_owned()], "audit".to_owned());
        match delivery_error(error, Step::Produce, &settings, events) {
            DeliveryError::Unavailable { reason, retry_after: None } => ("unavailable", reason),
            DeliveryError::Unavailable { .. } => unreachable!("Kafka has no Retry-After"),
            DeliveryError::TooLarge(reason) => ("too large", reason),
            DeliveryError::Rejected(reason) => ("rejected", reason),
            DeliveryError::Final(_) => unreachable!("Kafka has no such rule"),
        }
    }

    #[test]
    fn only_what_brokers_cannot_store_is_rejected_and_alone() {
        let frame = KrafkaError::protocol_kind(ProtocolErrorKind::FrameTooLarge, "frame");
        for error in [
            frame,
            KrafkaError::broker(ErrorCode::MessageTooLarge, "x"),
            KrafkaError::broker(ErrorCode::RecordListTooLarge, "x"),
            KrafkaError::broker(ErrorCode::InvalidRecord, "x"),
            KrafkaError::broker(ErrorCode::InvalidTimestamp, "x"),
        ] {
            assert_eq!(outcome(&error, 2).0, "too large", "{error}");
            assert_eq!(outcome(&error, 1).0, "rejected", "{error}");
        }
    }

    #[test]
    fn what_an_operator_can_correct_waits_and_names_the_remedy() {
        let broker = |code| KrafkaError::broker(code, "message");
        for (error, remedy) in [
            (KrafkaError::unknown_topic("audit"), "create it"),
            (broker(ErrorCode::UnknownTopicOrPartition), "create it"),
            (broker(ErrorCode::TopicAuthorizationFailed), "allow this user WRITE"),
            (broker(ErrorCode::ClusterAuthorizationFailed), "IDEMPOTENT_WRITE"),
            (broker(ErrorCode::SaslAuthenticationFailed), "check sasl-mechanism"),
            (broker(ErrorCode::NotEnoughReplicas), "min.insync.replicas"),
            (broker(ErrorCode::UnsupportedCompressionType), "set `compression`"),
            (KrafkaError::auth("rejected"), "check the certificates"),
            (KrafkaError::delivery_timeout(true, "late"), "late"),
            (KrafkaError::timeout("Produce"), "Produce"),
            (KrafkaError::out_of_order_sequence("audit", 0, "lost"), "lost"),
        ] {
            for events in [1, 100] {
                let (kind, reason) = outcome(&error, events);
                assert_eq!(kind, "unavailable", "{error}");
                assert!(reason.contains(remedy), "{reason}");
            }
        }
    }
}
