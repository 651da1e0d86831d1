//! A worker dies, or is told to stop.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bellhop_tests::program::Program;
use bellhop_tests::stack::Stack;
use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

/// A program that runs until a file appears, and writes a line each time it begins.
struct Script {
    dir: PathBuf,
}

impl Script {
    fn new() -> Self {
        let name = format!("bellhop-script-{}", Uuid::now_v7().simple());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let script = Self { dir };
        script.write("");
        script
    }

    /// One that does not listen to SIGTERM, and has a child that does not either.
    fn stubborn() -> Self {
        let script = Self::new();
        script.write("trap '' TERM\nsleep 1000 &\necho $! >> children\n");
        script
    }

    fn write(&self, first: &str) {
        let text = format!(
            "#!/bin/sh\ncd {dir}\n{first}echo $$ >> begun\n\
             echo '{{\"progress\":{{\"done\":1,\"total\":2,\"unit\":\"steps\"}}}}'\n\
             until [ -e go ]; do sleep 0.05; done\necho '\"done\"'\n",
            dir = self.dir.display()
        );
        std::fs::write(self.program(), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.program(), mode).unwrap();
    }

    fn program(&self) -> PathBuf {
        self.dir.join("wait.sh")
    }

    /// The setting that makes it a handler.
    fn setting(&self) -> String {
        format!("exec.wait.command=[\"{}\"]", self.program().display())
    }

    fn let_go(&self) {
        std::fs::write(self.dir.join("go"), "").unwrap();
    }

    fn pids(&self) -> Vec<String> {
        self.lines("begun")
    }

    fn children(&self) -> Vec<String> {
        self.lines("children")
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// Whether a process runs. One that has ended may still be listed, until its new parent looks.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    let state = |stat: String| stat.rsplit_once(") ").unwrap().1.chars().next();
    stat.is_ok_and(|stat| state(stat) != Some('Z'))
}

#[tokio::test]
async fn another_worker_finishes_the_job_of_one_that_was_killed() {
    let stack = Stack::shared();
    let script = Script::new();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let setting = script.setting();
    let mut first = Program::start("worker", &stack, &[&setting]).await;
    let id = stack.enqueue("wait", json!({}), "ann").await;
    ann.task_until(&id, |state| state["progress"]["done"] == 1)
        .await;
    let _second = Program::start("worker", &stack, &[&setting]).await;
    first.signal(Signal::KILL);
    first.ended().await;
    // The second begins it anew, and its events are not older than the first one's: `task_to_end`
    // checks that `rev` grows.
    let again = ann
        .task_until(&id, |state| state["status"] == "running")
        .await;
    assert_eq!(again["attempt"], 1, "a dead worker is no failed attempt");
    script.let_go();
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(
        (&end["status"], &end["result"]),
        (&json!("succeeded"), &json!("done"))
    );
    assert_eq!(script.pids().len(), 2);
    notifier.stop().await;
}

#[tokio::test]
async fn sigterm_lets_the_job_finish_and_takes_no_other() {
    let stack = Stack::shared();
    let script = Script::new();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let one = "queues.default.concurrency=1";
    let mut worker = Program::start("worker", &stack, &[&script.setting(), one]).await;
    let id = stack.enqueue("wait", json!({}), "ann").await;
    ann.task_until(&id, |state| state["progress"]["done"] == 1)
        .await;
    let waiting = stack.enqueue("wait", json!({}), "ann").await;
    worker.signal(Signal::TERM);
    script.let_go();
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    assert!(worker.ended().await.success());
    assert_eq!(script.pids().len(), 1, "{waiting} was not begun");
    // It waits for another.
    stack.rabbit().await.settles_at("jobs.default", 1).await;
    notifier.stop().await;
}

#[tokio::test]
async fn at_the_deadline_the_job_goes_back_and_its_program_ends() {
    let stack = Stack::shared();
    let script = Script::new();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let settings = [
        script.setting(),
        "shutdown.deadline=1s".into(),
        "jobs.grace=5s".into(),
    ];
    let settings = settings.each_ref().map(String::as_str);
    let mut worker = Program::start("worker", &stack, &settings).await;
    let id = stack.enqueue("wait", json!({}), "ann").await;
    ann.task_until(&id, |state| state["progress"]["done"] == 1)
        .await;
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success());
    let pid = script.pids().pop().unwrap();
    assert!(
        !Path::new("/proc").join(pid).exists(),
        "the program is gone"
    );
    stack.rabbit().await.settles_at("jobs.default", 1).await;
    script.let_go();
    let second = Program::start("worker", &stack, &[&script.setting()]).await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    drop(second);
    notifier.stop().await;
}

#[tokio::test]
async fn a_second_sigterm_ends_the_worker_and_its_programs_at_once() {
    let stack = Stack::shared();
    let script = Script::stubborn();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let setting = script.setting();
    let mut first = Program::start("worker", &stack, &[&setting]).await;
    let rabbit = stack.rabbit().await;
    let ends = rabbit.listening("events", "stored.#").await;
    let id = stack.enqueue("wait", json!({}), "ann").await;
    ann.task_until(&id, |state| state["progress"]["done"] == 1)
        .await;
    let processes = [script.pids(), script.children()].concat();
    assert!(processes.len() == 2 && processes.iter().all(|pid| runs(pid)));

    first.signal(Signal::TERM);
    first.wait_unready().await;
    first.signal(Signal::TERM);
    let began = Instant::now();
    assert_eq!(first.ended().await.code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(!processes.iter().any(|pid| runs(pid)));

    let _second = Program::start("worker", &stack, &[&setting]).await;
    script.let_go();
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(
        (&end["status"], &end["attempt"]),
        (&json!("succeeded"), &json!(1))
    );
    assert_eq!(script.pids().len(), 2);
    assert_eq!(rabbit.ready(&ends).await, 1, "it ended once");
    assert_eq!(rabbit.ready("dead").await, 0);
    notifier.stop().await;
}
