//! Readiness: a service is ready while each of its components is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

/// The components of a service, and whether each is up.
#[derive(Debug, Clone, Default)]
pub struct Health {
    components: Arc<Mutex<Vec<Part>>>,
}

/// A component under its name.
#[derive(Debug)]
struct Part {
    name: String,
    component: Component,
    /// The service is not ready without it.
    needed: bool,
}

/// One part of a service that can be up or down, such as the connection that consumes.
#[derive(Debug, Clone, Default)]
pub struct Component(Arc<AtomicBool>);

impl Component {
    /// It works.
    pub fn up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// It does not.
    pub fn down(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it works.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Health {
    /// No components: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a component, which is down until it says otherwise.
    #[must_use]
    pub fn component(&self, name: &str) -> Component {
        self.add(name, true)
    }

    /// Adds one that is only shown: the service is ready without it.
    #[must_use]
    pub fn notice(&self, name: &str) -> Component {
        self.add(name, false)
    }

    fn add(&self, name: &str, needed: bool) -> Component {
        let component = Component::default();
        self.components
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Part {
                name: name.to_owned(),
                component: component.clone(),
                needed,
            });
        component
    }

    /// Whether every component that is needed is up, and which is: `{"ready": false, "components": {...}}`.
    /// Those that are excluded are not needed. A name that no component has is no error; it stands in
    /// `unknown`.
    #[must_use]
    pub fn report(&self, excluded: &[String]) -> (bool, Value) {
        let components = self
            .components
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let ready = components
            .iter()
            .all(|part| part.component.is_up() || !part.needed || excluded.contains(&part.name));
        let states: Map<_, _> = components
            .iter()
            .map(|part| {
                let state = if part.component.is_up() { "up" } else { "down" };
                (part.name.clone(), Value::from(state))
            })
            .collect();
        let (known, unknown): (Vec<_>, Vec<_>) =
            excluded.iter().partition(|name| states.contains_key(*name));
        let mut report = Map::new();
        report.insert("ready".into(), ready.into());
        report.insert("components".into(), states.into());
        for (key, names) in [("excluded", known), ("unknown", unknown)] {
            if !names.is_empty() {
                report.insert(key.into(), serde_json::json!(names));
            }
        }
        (ready, report.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_component_down_means_not_ready_and_is_named() {
        let health = Health::new();
        assert!(health.report(&[]).0);
        let (publisher, consumer) = (health.component("publisher"), health.component("consumer"));
        publisher.up();
        let (ready, report) = health.report(&[]);
        assert!(!ready);
        assert_eq!(report["components"]["consumer"], "down");
        consumer.up();
        assert!(health.report(&[]).0);
        publisher.down();
        assert!(!health.report(&[]).0);
        publisher.up();
        let _sink = health.notice("sink");
        let (ready, report) = health.report(&[]);
        assert!(ready, "it is only shown");
        assert_eq!(report["components"]["sink"], "down");
    }

    #[test]
    fn who_asks_may_leave_components_out() {
        let health = Health::new();
        health.component("publisher").up();
        let _store = health.component("store");
        let without = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            health.report(&names)
        };
        assert!(!without(&["publisher"]).0);
        let (ready, report) = without(&["store", "stoer"]);
        assert!(ready);
        assert_eq!(report["components"]["store"], "down", "it is still told");
        assert_eq!(report["excluded"], serde_json::json!(["store"]));
        assert_eq!(report["unknown"], serde_json::json!(["stoer"]));
        let (_, report) = without(&[]);
        assert!(report.get("excluded").is_none() && report.get("unknown").is_none());
    }
}
