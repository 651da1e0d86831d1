//! `deploy/worker.toml` and `deploy/notifier.toml`: every key there is, with its default.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bellhop_common::config::ServiceConfig;
use bellhop_notifier::NotifierConfig;
use bellhop_tests::broker::free_port;
use bellhop_tests::stack::Stack;
use bellhop_worker::WorkerConfig;
use toml::{Table, Value};

use super::run_at;

const UNKNOWN: &str = "there-is-no-such-key";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../deploy/{name}.toml"))
}

/// The file with its examples: what has `#` right before it, with no space.
fn with_examples(name: &str) -> String {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let line = |line: &str| match line.strip_prefix('#') {
        Some(example) if !example.is_empty() && !example.starts_with(' ') => example.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

#[tokio::test]
async fn the_files_of_deploy_change_nothing() {
    for name in ["worker", "notifier"] {
        let stack = Stack::on(format!("amqp://127.0.0.1:{}/%2f", free_port()));
        let check = ["run", "--check-config"];
        let without = run_at(&stack, name, &check, &[]).await;
        assert_eq!(without.code, Some(0), "{}", without.err);
        let file = path(name);
        let with = [&check[..], &["--config", file.to_str().unwrap()]].concat();
        let with = run_at(&stack, name, &with, &[]).await;
        assert_eq!((with.code, &*with.err), (Some(0), ""));
        assert_eq!(with.out, without.out, "{name}");
    }
}

#[test]
fn the_examples_are_read_and_only_what_excludes_each_other_is_complained_about() {
    let complaints = |config: &dyn Fn(&str) -> Vec<String>, name| config(&with_examples(name));
    let worker = complaints(&problems::<WorkerConfig>, "worker");
    assert_eq!(worker.len(), 1, "{worker:#?}");
    assert!(worker[0].contains("amqps://"), "{worker:#?}");
    let notifier = complaints(&problems::<NotifierConfig>, "notifier").join("\n");
    let wants = [
        "amqps://",
        "needs exactly one of auth.secret and auth.secret_file",
        "needs exactly one of auth.keys \"2026-11\".secret and",
        "auth.jwks_file and auth.jwks_url",
        "rooms.callback_url is only asked with",
        "store.url and store.url_file",
        "mail.password and mail.password_file",
        "mattermost.webhook_url and mattermost.webhook_url_file",
        "alerts.receivers.ops.webhook_url and alerts.receivers.ops.webhook_url_file",
    ];
    for wanted in wants {
        assert!(notifier.contains(wanted), "{wanted} in {notifier}");
    }
    assert_eq!(notifier.lines().count(), wants.len(), "{notifier}");
}

fn problems<C: ServiceConfig>(text: &str) -> Vec<String> {
    toml::from_str::<C>(text).unwrap().problems()
}

#[test]
fn no_key_is_left_out_of_the_files_of_deploy() {
    let worker: Table = toml::from_str(&with_examples("worker")).unwrap();
    is_complete::<WorkerConfig>(worker);
    let notifier: Table = toml::from_str(&with_examples("notifier")).unwrap();
    is_complete::<NotifierConfig>(notifier);
}

/// Puts an unknown key into every table, one after the other. The answer names those that are known.
fn is_complete<C: ServiceConfig>(file: Table) {
    let mut file = Value::Table(file);
    let mut places = Vec::new();
    tables(&file, &mut Vec::new(), &mut places);
    // Of an array's tables each may say a part.
    let mut known = BTreeMap::<String, BTreeSet<String>>::new();
    let mut said = BTreeMap::<String, BTreeSet<String>>::new();
    for place in &places {
        let table = at(&mut file, place);
        let keys: Vec<String> = table.keys().cloned().collect();
        table.insert(UNKNOWN.into(), Value::Boolean(true));
        let answer = file.clone().try_into::<C>().err();
        at(&mut file, place).remove(UNKNOWN);
        let message = answer.map_or_else(String::new, |error| error.message().to_owned());
        // A table whose keys are names that one gives has none that are unknown.
        let Some(names) = message.strip_prefix(&format!("unknown field `{UNKNOWN}`")) else {
            continue;
        };
        let names = names.split('`').skip(1).step_by(2).map(str::to_owned);
        let label: Vec<&str> = place.iter().map(Step::label).collect();
        let label = label.join(".");
        known.entry(label.clone()).or_default().extend(names);
        said.entry(label).or_default().extend(keys);
    }
    assert!(known.len() > 5, "{known:#?}");
    assert_eq!(said, known);
}

/// A step from a value to one within.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Entry(usize),
}

impl Step {
    fn label(&self) -> &str {
        match self {
            Self::Key(key) => key,
            Self::Entry(_) => "[]",
        }
    }
}

fn tables(value: &Value, place: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    let within: Vec<(Step, &Value)> = match value {
        Value::Table(table) => {
            found.push(place.clone());
            let entries = table.iter();
            entries
                .map(|(key, value)| (Step::Key(key.clone()), value))
                .collect()
        }
        Value::Array(entries) => {
            let entries = entries.iter().enumerate();
            entries
                .map(|(index, value)| (Step::Entry(index), value))
                .collect()
        }
        _ => Vec::new(),
    };
    for (step, value) in within {
        place.push(step);
        tables(value, place, found);
        place.pop();
    }
}

fn at<'a>(file: &'a mut Value, place: &[Step]) -> &'a mut Table {
    let within = place.iter().fold(file, |value, step| match step {
        Step::Key(key) => value.get_mut(key.as_str()).unwrap(),
        Step::Entry(index) => value.get_mut(*index).unwrap(),
    });
    within.as_table_mut().unwrap()
}
