//! A closed loop: publications go out as long as few enough are on their way.

use std::time::{Duration, Instant};

use super::client::Swarm;
use super::publish::Publisher;
use super::scene::{Mark, Member, Scene, Spent};
use super::servers::Server;

/// No delivery for so long: it is not going to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A publisher, its audience, and how far both are.
pub(crate) struct Pump<'a> {
    pub(crate) scene: &'a Scene<'a>,
    pub(crate) server: &'a Server,
    pub(crate) swarm: &'a Swarm,
    pub(crate) publisher: Publisher,
    /// How many get each publication.
    pub(crate) audience: u64,
    /// How many deliveries are to come since the swarm's beginning.
    due: u64,
}

impl<'a> Pump<'a> {
    pub(crate) async fn new(
        scene: &'a Scene<'a>,
        server: &'a Server,
        swarm: &'a Swarm,
        audience: u64,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            scene,
            server,
            swarm,
            publisher: server.publisher(scene).await?,
            audience,
            due: swarm.received(),
        })
    }

    /// Publishes once, and waits until no more than `window` publications are on their way.
    async fn publish(&mut self, member: &Member, window: u64) -> anyhow::Result<()> {
        self.publisher.publish(member).await?;
        self.due += self.audience;
        let may_wait = (window - 1) * self.audience;
        self.swarm.until(self.due - may_wait, PATIENCE).await
    }

    /// Waits for everything.
    async fn drain(&self) -> anyhow::Result<()> {
        self.swarm.until(self.due, PATIENCE).await
    }

    /// Publishes to members for a time. Answers deliveries, and what they cost.
    pub(crate) async fn run<'m>(
        &mut self,
        mut members: impl FnMut() -> &'m Member,
        window: u64,
        time: Duration,
    ) -> anyhow::Result<(f64, Spent)> {
        self.keep_on(&mut members, window, time / 4).await?;
        let (before, begin) = (self.due, self.mark());
        self.keep_on(&mut members, window, time).await?;
        let spent = begin.until(&self.mark());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 deliveries")]
        let deliveries = (self.due - before) as f64;
        Ok((deliveries, spent))
    }

    async fn keep_on<'m>(
        &mut self,
        members: &mut impl FnMut() -> &'m Member,
        window: u64,
        time: Duration,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.publish(members(), window).await?;
        }
        self.drain().await
    }

    /// Publishes one, and answers how long it took until everybody had it.
    pub(crate) async fn one(&mut self, member: &Member) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.publish(member, 1).await?;
        Ok(began.elapsed())
    }

    fn mark(&self) -> Mark {
        self.scene.mark(&self.server.group)
    }
}
