use super::fake_client::{FakeClient, Reply, event};
use super::*;

struct Rig {
    webhook: WebhookBackend,
    client: Arc<FakeClient>,
    metrics: Arc<DeliveryMetrics>,
}

fn rig(mode: Mode, replies: &[Reply]) -> Rig {
    let initial_backoff = Duration::from_secs(1);
    let (max_event_size, compress, spool) = (Some(100), false, None);
    let config = WebhookConfig { mode, initial_backoff, max_event_size, compress, spool };
    let (client, metrics) = (FakeClient::new(replies), Arc::new(DeliveryMetrics::default()));
    let webhook = WebhookBackend::start(config, client.clone(), metrics.clone()).unwrap();
    Rig { webhook, client, metrics }
}

fn batch(buffer_size: usize) -> Mode {
    Mode::Batch { buffer_size, max_size: 1, max_wait: Duration::ZERO, throttle: None }
}

impl Rig {
    /// Returns the numbers of lost events by reason: not sent, queue full, too large.
    fn lost(&self) -> [u64; 3] {
        [Plugin::Webhook, Plugin::Buffered, Plugin::Truncate]
            .map(|plugin| self.metrics.backend.lost(plugin))
    }

    async fn shutdown(&self) {
        self.webhook.shutdown(&CancellationToken::new()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_blocking_mode_the_request_waits_for_the_response() {
    for (mode, strict) in [(Mode::Blocking, false), (Mode::BlockingStrict, true)] {
        let rig = rig(mode.clone(), &[Reply::Hang]);
        assert!(rig.webhook.is_awaited());
        assert_eq!(rig.webhook.is_strict(), strict);
        let committing = tokio::spawn(rig.webhook.submit(event(1, 0)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!committing.is_finished());
        rig.client.release();
        committing.await.unwrap().unwrap();
        assert_eq!((rig.client.ids(), rig.lost()), (vec![vec![1]], [0; 3]));
        rig.shutdown().await;

        let rig = self::rig(mode, &[Reply::Status(500)]);
        let committed = rig.webhook.submit(event(2, 0)).await;
        assert_eq!(committed.is_err(), strict, "{committed:?}");
        assert_eq!(rig.lost(), [1, 0, 0], "counted in any case");
        assert!(!rig.webhook.is_writable().await);
        rig.shutdown().await;
        assert_eq!(rig.webhook.submit(event(3, 0)).await.is_err(), strict);
        assert_eq!(rig.lost(), [2, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_failed_gets_the_list_again_until_it_accepts_it() {
    let failing = [Reply::Status(500); 8];
    let replies: Vec<Reply> = failing.into_iter().chain([Reply::Status(200)]).collect();
    let rig = rig(Mode::BlockingStrict, &replies);
    rig.webhook.submit(event(1, 0)).await.unwrap_err();
    assert_eq!(rig.client.ids().len(), 5);
    let reason = "the webhook does not accept events: it responded with 500 Internal Server Error";
    assert_eq!(rig.webhook.check().await, Err(reason.to_owned()));
    while !rig.webhook.is_writable().await {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rig.client.ids(), vec![vec![1]; 9], "without another event");
    rig.webhook.check().await.unwrap();
    rig.webhook.submit(event(2, 0)).await.unwrap();
    rig.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn in_batch_mode_nothing_waits_and_a_full_queue_drops_the_newest() {
    let rig = rig(batch(2), &[]);
    assert!(!rig.webhook.is_awaited() && !rig.webhook.is_strict());
    for id in 0..4 {
        let commit = rig.webhook.submit(event(id, 0));
        assert!(commit.await.is_ok());
    }
    assert_eq!(rig.lost(), [0, 2, 0]);
    rig.shutdown().await;
    assert_eq!(rig.client.ids(), [[0], [1]]);
    rig.webhook.submit(event(4, 0)).await.unwrap();
    assert_eq!(rig.lost(), [0, 3, 0], "after the shutdown");
    assert_eq!(rig.metrics.backend.events.get(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_too_large_is_counted_and_fails_nothing() {
    for mode in [Mode::BlockingStrict, batch(10)] {
        let rig = rig(mode, &[]);
        rig.webhook.submit(event(1, 200)).await.unwrap();
        rig.webhook.submit(event(2, 10)).await.unwrap();
        rig.shutdown().await;
        assert_eq!((rig.client.ids(), rig.lost()), (vec![vec![2]], [0, 0, 1]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_gives_up_counts_what_is_not_delivered() {
    for mode in [Mode::Blocking, batch(10)] {
        let rig = rig(mode, &[Reply::Hang]);
        let commits: Vec<Commit> = (0..3).map(|id| rig.webhook.submit(event(id, 0))).collect();
        let give_up = CancellationToken::new();
        let shutdown = rig.webhook.shutdown(&give_up);
        let give_up_later = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            give_up.cancel();
        };
        tokio::join!(shutdown, give_up_later);
        for commit in commits {
            commit.await.unwrap();
        }
        assert_eq!(rig.lost(), [3, 0, 0]);
    }
}
