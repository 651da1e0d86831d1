//! How high the delay ladder is: rungs are declared when they are first needed, because most
//! systems never need the upper ones.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::names::Names;
use super::publisher::{PublishError, Publisher};
use super::topology::Topology;

/// How high the ladder is known to be, and by which connection.
#[derive(Debug, Default)]
pub struct Rungs(Mutex<(u64, u8)>);

impl Rungs {
    /// Makes sure that there is a rung of this level and all below.
    ///
    /// Anew with each connection: `mandatory` would not tell that a rung is missing, because the
    /// ledger takes every message that enters the ladder.
    ///
    /// # Errors
    /// [`PublishError::Timeout`].
    pub async fn raise(
        &self,
        publisher: &Publisher,
        names: &Names,
        level: u8,
    ) -> Result<(), PublishError> {
        let (generation, height) = (publisher.generation(), level + 1);
        if generation != 0 && self.reaches(generation, height) {
            return Ok(());
        }
        publisher.declare(&Topology::ladder(names, level)).await?;
        self.raised(generation, height);
        Ok(())
    }

    fn reaches(&self, generation: u64, height: u8) -> bool {
        let known = self.lock();
        known.0 == generation && known.1 >= height
    }

    fn raised(&self, generation: u64, height: u8) {
        let mut known = self.lock();
        let before = if known.0 == generation { known.1 } else { 0 };
        *known = (generation, before.max(height));
    }

    fn lock(&self) -> MutexGuard<'_, (u64, u8)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
