//! Celery, from `PyPI`, with its default pool (prefork) and one process a core.
//!
//! As durable as our worker: a quorum queue, acknowledged after the task (`acks_late`), task
//! events on. The jobs are put in by us, in Celery's message protocol 2.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bellhop_common::amqp::{Message, Queue, QueueKind, Route, Topology};
use serde_json::{Map, Value, json};
use tokio::process::Command;
use uuid::Uuid;

use super::load::fill;
use super::progress;
use super::scene::Scene;
use crate::machine::cores;
use crate::process::Group;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/celery");
const REQUIREMENTS: &str = include_str!("../../peers/celery/requirements.txt");

/// An installed Celery.
#[derive(Debug)]
pub(crate) struct Celery {
    python: PathBuf,
    version: String,
}

impl Celery {
    /// Installs it into a virtual environment below `peers`, unless it is there.
    pub(crate) async fn install(peers: &Path) -> anyhow::Result<Self> {
        let folder = peers.join("celery");
        let python = folder.join("bin/python");
        let stamp = folder.join("installed.txt");
        if std::fs::read_to_string(&stamp).is_ok_and(|text| text == REQUIREMENTS) {
            return Self::at(python).await;
        }
        progress(&format!("installing Celery into {}", folder.display()));
        std::fs::create_dir_all(peers)
            .with_context(|| format!("cannot make {}", peers.display()))?;
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv", "--clear"]).arg(&folder);
        output(
            venv,
            "python3 -m venv (on Debian or Ubuntu it needs the package python3-venv)",
        )
        .await?;
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ])
        .arg(format!("{SCRIPTS}/requirements.txt"));
        output(pip, "pip install").await?;
        std::fs::write(stamp, REQUIREMENTS)?;
        Self::at(python).await
    }

    async fn at(python: PathBuf) -> anyhow::Result<Self> {
        let mut command = Command::new(&python);
        let code = "import sys, celery; print(celery.__version__, '(Python %d.%d.%d)' % sys.version_info[:3])";
        command.args(["-c", code]);
        let version = output(command, "import celery").await?;
        Ok(Self {
            python,
            version: version.trim().to_owned(),
        })
    }

    pub(crate) fn describe(&self) -> Map<String, Value> {
        let how = format!(
            "prefork, {} processes, acks_late, -E, quorum queue",
            cores()
        );
        Map::from_iter([
            ("version".into(), json!(self.version)),
            ("how".into(), json!(how)),
        ])
    }

    /// Starts a worker; it takes jobs as soon as it is connected.
    pub(crate) fn start(&self, scene: &Scene<'_>, queue: &str) -> anyhow::Result<Group> {
        let mut command = Command::new(&self.python);
        command
            .args([
                "-m",
                "celery",
                "--app",
                "bench_app",
                "worker",
                "--task-events",
            ])
            .args(["--pool", "prefork", "--concurrency", &cores().to_string()])
            // Talk between workers; there is only one.
            .args([
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
            ])
            .args(["--loglevel", "WARNING"])
            .env("PYTHONPATH", SCRIPTS)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // A container's only user is often root; Celery asks twice.
            .env("C_FORCE_ROOT", "1")
            .env("BELLHOP_BENCH_AMQP_URL", scene.stage.url)
            .env("BELLHOP_BENCH_QUEUE", queue)
            .env(
                "BELLHOP_BENCH_PREFETCH",
                scene.stage.options.celery_prefetch.to_string(),
            );
        Group::start(command, "Celery", scene.stage.folder.join("celery.log"))
    }
}

/// Declares the queue and puts tasks into it.
pub(crate) async fn enqueue(scene: &Scene<'_>, queue: &str, count: u32) -> anyhow::Result<()> {
    let topology = Topology {
        queues: vec![Queue {
            name: queue.to_owned(),
            kind: QueueKind::Plain,
        }],
        ..Topology::default()
    };
    let route = Route {
        exchange: "",
        key: queue,
        mandatory: false,
    };
    let body =
        json!([[], {}, { "callbacks": null, "errbacks": null, "chain": null, "chord": null }]);
    let body = serde_json::to_vec(&body)?;
    fill(&scene.config, topology, route, count, || {
        let id = Uuid::now_v7().to_string();
        let headers = [
            ("lang", "py"),
            ("task", "bench.noop"),
            ("id", &id),
            ("root_id", &id),
        ];
        Ok(Message {
            body: body.clone(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            correlation_id: Some(id),
            persistent: true,
            ..Message::default()
        })
    })
    .await
}

async fn output(mut command: Command, what: &str) -> anyhow::Result<String> {
    let output = command
        .output()
        .await
        .with_context(|| format!("cannot run {what}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{what} failed; --without celery leaves Celery out: {}",
            errors.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
