use super::*;
use crate::webhook::DeliveryMetrics;
use crate::webhook::config::WebhookConfig;
use crate::webhook::fake_client::{FakeClient, Reply, event};
use crate::{Mode, Plugin};

const MAX_SIZE: usize = 3;
const MAX_WAIT: Duration = Duration::from_secs(5);

struct Rig {
    /// `None` when the queue is closed.
    events: Option<mpsc::Sender<Line>>,
    client: Arc<FakeClient>,
    metrics: Arc<DeliveryMetrics>,
    ending: Ending,
    running: JoinHandle<()>,
}

fn rig_with(replies: &[Reply], throttle: Option<Throttle>) -> Rig {
    let (client, metrics) = (FakeClient::new(replies), Arc::new(DeliveryMetrics::default()));
    let (mode, initial_backoff) = (Mode::Blocking, Duration::from_secs(1));
    let (compress, max_event_size, spool) = (false, None, None);
    let config = WebhookConfig { mode, initial_backoff, max_event_size, compress, spool };
    let ending = Ending::default();
    let sender = Sender::new(&config, client.clone(), metrics.clone(), ending.clone());
    let (sender, lost) =
        (Arc::new(sender), Arc::new(DroppedEvents::new(Plugin::Webhook, metrics.backend.clone())));
    let collector = Collector {
        outlet: Outlet::new(None, &sender, &lost),
        sender,
        lost,
        ending: ending.clone(),
        max_size: MAX_SIZE,
        max_wait: MAX_WAIT,
        throttle,
    };
    let (events, received) = mpsc::channel(1000);
    let running = tokio::spawn(collector.run(received));
    Rig { events: Some(events), client, metrics, ending, running }
}

fn rig(replies: &[Reply]) -> Rig {
    rig_with(replies, None)
}

impl Rig {
    fn submit(&self, ids: std::ops::Range<u64>) {
        let events = self.events.as_ref().unwrap();
        ids.for_each(|id| events.try_send(event(id, 0)).unwrap());
    }

    /// Closes the queue. Returns when all events are delivered or counted as lost.
    async fn close(&mut self) {
        self.events = None;
        (&mut self.running).await.unwrap();
    }

    fn lost(&self) -> u64 {
        self.metrics.backend.lost(Plugin::Webhook)
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_sent_when_it_is_full_or_its_time_has_come_or_at_the_end() {
    let mut rig = rig(&[]);
    let started = tokio::time::Instant::now();
    rig.submit(0..4);
    tokio::time::sleep(MAX_WAIT / 2).await;
    assert_eq!(rig.client.ids(), [[0, 1, 2]], "full");
    assert_eq!(rig.client.times()[0], started, "at once");
    tokio::time::sleep(MAX_WAIT).await;
    assert_eq!(rig.client.ids()[1..], [[3]], "its time has come");
    assert!(rig.client.times()[1] - started >= MAX_WAIT);
    tokio::time::sleep(MAX_WAIT * 10).await;
    assert_eq!(rig.client.ids().len(), 2, "no batch without an event");
    rig.submit(4..6);
    tokio::task::yield_now().await;
    let closed = tokio::time::Instant::now();
    rig.close().await;
    assert_eq!(rig.client.ids()[2..], [[4, 5]], "the end");
    assert_eq!(closed.elapsed(), Duration::ZERO);
    assert_eq!((rig.metrics.events.get(), rig.lost()), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_spool_a_limited_number_of_batches_is_sent_at_a_time() {
    let mut rig = rig(&[Reply::Hang]);
    let batches = IN_FLIGHT as u64 + 2;
    rig.submit(0..batches * MAX_SIZE as u64);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.client.ids().len(), IN_FLIGHT);
    rig.client.release();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.client.ids().len() as u64, batches, "the others wait for these");
    let release = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        rig.client.release();
    };
    release.await;
    rig.close().await;
    assert_eq!(rig.metrics.events.get(), batches * MAX_SIZE as u64);
    assert_eq!(rig.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn batches_need_tokens_until_the_shutdown() {
    let throttle = Some(Throttle { qps: 0.1, burst: 2 });
    let mut rig = rig_with(&[], throttle);
    rig.submit(0..12);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.client.ids().len(), 2, "the burst");
    rig.ending.closing.cancel();
    rig.close().await;
    assert_eq!(rig.client.ids().len(), 4);
    assert_eq!(rig.client.ids().concat(), (0..12).collect::<Vec<_>>(), "in order");
}

#[tokio::test(start_paused = true)]
async fn what_the_endpoint_does_not_accept_is_counted() {
    let mut rig = rig(&[Reply::Status(500)]);
    rig.submit(0..4);
    rig.close().await;
    assert_eq!((rig.metrics.events.get(), rig.lost()), (0, 4));

    // The shutdown times out: the batch that is being sent, the one that waits for it, and the one
    // that waits for a token are lost.
    let mut rig = self::rig(&[Reply::Hang]);
    let events = (IN_FLIGHT as u64 + 3) * MAX_SIZE as u64;
    rig.submit(0..events);
    tokio::time::sleep(Duration::from_millis(1)).await;
    rig.ending.closing.cancel();
    rig.ending.give_up.cancel();
    rig.close().await;
    assert_eq!((rig.metrics.events.get(), rig.lost()), (0, events));
}
