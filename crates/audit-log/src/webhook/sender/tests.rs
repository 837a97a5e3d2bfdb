use tokio::time::Instant;

use super::*;
use crate::webhook::fake_client::{FakeClient, Reply, event};
use crate::webhook::list;

const INITIAL: Duration = Duration::from_secs(10);

struct Rig {
    sender: Arc<Sender>,
    client: Arc<FakeClient>,
    metrics: Arc<DeliveryMetrics>,
    ending: Ending,
}

fn rig_with(replies: &[Reply], compress: bool) -> Rig {
    let (mode, initial_backoff) = (Mode::Blocking, INITIAL);
    let config =
        WebhookConfig { mode, initial_backoff, max_event_size: None, compress, spool: None };
    let (client, metrics) = (FakeClient::new(replies), Arc::new(DeliveryMetrics::default()));
    let ending = Ending::default();
    let sender = Sender::new(&config, client.clone(), metrics.clone(), ending.clone());
    Rig { sender: Arc::new(sender), client, metrics, ending }
}

fn rig(replies: &[Reply]) -> Rig {
    rig_with(replies, false)
}

fn list_of(events: u64, padding: usize) -> Vec<u8> {
    list::encode(&(0..events).map(|id| event(id, padding)).collect::<Vec<_>>())
}

impl Rig {
    async fn send(&self, events: u64) -> Result<(), (u64, String)> {
        let sent = self.sender.send(&list_of(events, 0), events).await;
        sent.map_err(|(events, failure)| (events, failure.to_string()))
    }

    /// Returns the delays between the attempts.
    fn delays(&self) -> Vec<Duration> {
        self.client.times().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    fn is_healthy(&self) -> bool {
        self.sender.health().state() == crate::BackendState::Ok
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_accepted_is_sent_once_and_as_it_is() {
    for compress in [false, true] {
        let rig = rig_with(&[Reply::Status(200)], compress);
        rig.send(3).await.unwrap();
        assert_eq!(rig.client.bodies(), [list_of(3, 0)], "compressed: {compress}");
        assert_eq!(rig.metrics.events.get(), 3);
        assert_eq!(rig.metrics.failures.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn five_attempts_with_growing_delays_then_the_list_is_given_up() {
    for (reply, reason) in [
        (Reply::Unreachable, "connection refused"),
        (Reply::Status(500), "it responded with 500 Internal Server Error"),
        (Reply::Hang, "no response in 30s"),
    ] {
        let rig = rig(&[reply]);
        assert_eq!(rig.send(2).await, Err((2, reason.to_owned())));
        let response = if matches!(reply, Reply::Hang) { TIMEOUT } else { Duration::ZERO };
        let delays: Vec<_> = rig.delays().into_iter().map(|delay| delay - response).collect();
        assert_eq!(delays.len(), 4, "{reason}");
        for (attempt, delay) in delays.into_iter().enumerate() {
            let exact = INITIAL.mul_f64(1.5_f64.powi(attempt as i32));
            let slack = exact.mul_f64(0.2) + Duration::from_millis(2);
            assert!(delay >= exact && delay <= exact + slack, "{attempt}: {delay:?}");
        }
        assert!(!rig.is_healthy(), "{reason}");
        assert_eq!(rig.metrics.failures.get(), 5);
        assert_eq!(rig.metrics.events.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_recovers_gets_the_list() {
    let rig = rig(&[Reply::Unreachable, Reply::Status(503), Reply::Status(204)]);
    let sending = tokio::spawn({
        let sender = rig.sender.clone();
        async move { sender.send(&list_of(1, 0), 1).await.is_ok() }
    });
    tokio::time::sleep(INITIAL / 2).await;
    assert!(!rig.is_healthy(), "the first attempt has failed");
    assert!(sending.await.unwrap());
    assert!(rig.is_healthy());
    assert_eq!(rig.client.times().len(), 3);
    assert_eq!(rig.metrics.events.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_invalid_says_nothing_about_the_endpoint() {
    for status in [400, 422] {
        let rig = rig(&[Reply::Status(status)]);
        rig.send(1).await.unwrap_err();
        assert_eq!(rig.client.times().len(), 5);
        assert!(rig.is_healthy(), "{status}: it may accept another list");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_too_large_is_sent_in_halves_at_once() {
    let too_large = Reply::Status(413);
    let rig = rig(&[too_large, too_large, Reply::Status(200)]);
    rig.send(4).await.unwrap();
    assert_eq!(rig.client.ids(), [vec![0, 1, 2, 3], vec![0, 1], vec![0], vec![1], vec![2, 3]]);
    assert_eq!(rig.delays(), [Duration::ZERO; 4], "nothing failed that waiting could mend");
    assert_eq!(rig.metrics.events.get(), 4);

    let rig = self::rig(&[too_large]);
    let (events, reason) = rig.send(2).await.unwrap_err();
    assert_eq!((events, &*reason), (2, "it responded with 413 Payload Too Large"));
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_may_ask_for_more_time_up_to_a_limit() {
    let (soon, later, never) = (1, 70, 1_000_000);
    let replies = [soon, later, never].map(|seconds| Reply::RetryAfter(503, seconds));
    let rig = rig(&[replies[0], replies[1], replies[2], Reply::Status(200)]);
    rig.send(1).await.unwrap();
    let delays = rig.delays();
    assert!(delays[0] >= INITIAL && delays[0] < INITIAL * 2, "not sooner: {delays:?}");
    assert_eq!(delays[1..], [Duration::from_secs(70), LONGEST]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_shortens_delays_and_ends_attempts() {
    let rig = rig(&[Reply::Unreachable]);
    rig.ending.closing.cancel();
    rig.send(1).await.unwrap_err();
    assert_eq!(rig.delays(), [LAST_DELAY; 4], "five attempts all the same");

    let rig = self::rig(&[Reply::Hang]);
    let (sending, started) = (rig.send(7), Instant::now());
    let give_up = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        rig.ending.give_up.cancel();
    };
    let (sent, ()) = tokio::join!(sending, give_up);
    assert_eq!(sent, Err((7, GAVE_UP.to_owned())));
    assert_eq!(started.elapsed(), Duration::from_secs(3), "the attempt is not waited for");
    assert_eq!(rig.send(1).await, Err((1, GAVE_UP.to_owned())));
    assert_eq!(rig.client.times().len(), 1, "nothing is tried afterwards");
}

#[tokio::test]
async fn an_unreachable_endpoint_is_reported_by_its_error() {
    assert_eq!(
        rig(&[Reply::Unreachable]).sender.connect().await.unwrap_err(),
        "connection refused"
    );
    rig(&[]).sender.connect().await.unwrap();
    let text = format!("{:?}", rig(&[]).sender);
    assert_eq!(text, "Sender { endpoint: \"fake:443\", .. }");
}
