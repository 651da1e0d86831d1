use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::*;
use crate::store::SharedStore;
use crate::store::conformance::{RETENTION, conforms};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("bellhop-store-{}", Uuid::now_v7()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn fresh() -> std::future::Ready<(SharedStore, Folder)> {
    let folder = Folder::new();
    let store = Sqlite::open(&folder.file("store.db"), RETENTION).unwrap();
    std::future::ready((Arc::new(store), folder))
}

conforms!(fresh);

fn events(count: usize) -> Vec<NewEvent> {
    let event = |n: usize| NewEvent {
        stream: StreamName::user(&format!("u{}", n % 7)),
        id: Uuid::now_v7(),
        body: n.to_string().into(),
        task: None,
        group: None,
    };
    (0..count).map(event).collect()
}

#[tokio::test]
async fn a_store_that_was_closed_is_one_file() {
    let folder = Folder::new();
    let path = folder.file("store.db");
    let store = Sqlite::open(&path, RETENTION).unwrap();
    store.append(events(20), Timestamp::now()).await.unwrap();
    drop(store);
    let left = std::fs::read_dir(&folder.0).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [path]);
}

#[tokio::test]
async fn a_file_that_is_opened_again_goes_on() {
    let folder = Folder::new();
    let path = folder.file("store.db");
    let batch = events(20);
    let first = Sqlite::open(&path, RETENTION).unwrap();
    let kept = first.append(batch.clone(), Timestamp::now()).await.unwrap();
    drop(first);
    let second = Sqlite::open(&path, RETENTION).unwrap();
    let again = second.append(batch, Timestamp::now()).await.unwrap();
    assert_eq!(kept.len(), again.len());
    for (before, after) in kept.iter().zip(&again) {
        assert_eq!(before.position, after.position);
    }
    assert_eq!(check(&path).unwrap(), Vec::<String>::new());
}

/// One has an event, one a task, one a task by an event; whoever else comes is not looked up.
#[tokio::test]
async fn who_has_something_is_known_at_once_and_when_the_file_is_opened_again() {
    let folder = Folder::new();
    let path = folder.file("store.db");
    let task = |user: &str| TaskRecord {
        user_id: user.into(),
        task_id: "t".into(),
        rev: 1,
        is_final: false,
        state: "{}".into(),
    };
    let query = TaskQuery {
        ended: None,
        before: None,
        limit: 10,
        max_bytes: 1000,
    };
    let store = Sqlite::open(&path, RETENTION).unwrap();
    let mut batch = events(1);
    batch[0].task = Some(task("other"));
    store.append(batch, Timestamp::now()).await.unwrap();
    let put = store.put_tasks(vec![task("waits")], Timestamp::now());
    put.await.unwrap();
    let mut has = Vec::new();
    let mut look = async |store: &Sqlite| {
        for user in ["u0", "other", "waits", "nobody"] {
            let own = StreamName::user(user);
            let (heads, tasks) = store
                .open(vec![own], user.into(), query.clone())
                .await
                .unwrap();
            has.push((user, heads[0].last, tasks.items.len()));
        }
    };
    look(&store).await;
    drop(store);
    look(&Sqlite::open(&path, RETENTION).unwrap()).await;
    let once = [
        ("u0", 1, 0),
        ("other", 0, 1),
        ("waits", 0, 1),
        ("nobody", 0, 0),
    ];
    assert_eq!(has, [once, once].concat());
}

#[tokio::test]
async fn only_the_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let path = folder.file("store.db");
    let store = Sqlite::open(&path, RETENTION).unwrap();
    store.append(events(1), Timestamp::now()).await.unwrap();
    for file in std::fs::read_dir(&folder.0).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.file_name());
    }
}

#[test]
fn a_file_that_is_not_ours_is_refused_with_the_way_out() {
    let folder = Folder::new();
    let open = |path: &Path| Sqlite::open(path, RETENTION).unwrap_err();

    let text = folder.file("text");
    std::fs::write(
        &text,
        "no database at all, but long enough to have a header".repeat(99),
    )
    .unwrap();
    let error = open(&text);
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("backup"), "{error}");

    let foreign = folder.file("foreign");
    let other = Connection::open(&foreign).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    let error = open(&foreign);
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
    assert!(error.to_string().contains("store.path"), "{error}");

    let newer = folder.file("newer");
    drop(Sqlite::open(&newer, RETENTION).unwrap());
    let later = Connection::open(&newer).unwrap();
    later.pragma_update(None, "user_version", 999).unwrap();
    let error = open(&newer);
    assert!(
        matches!(error, StoreError::Newer { found: 999, .. }),
        "{error:?}"
    );

    let error = open(&folder.file("no/such/folder"));
    assert!(matches!(error, StoreError::Create { .. }), "{error:?}");
}

/// An empty one, as an earlier notifier made it.
fn file_of_format(path: &Path, format: usize) -> Connection {
    let old = Connection::open(path).unwrap();
    for step in &schema::STEPS[..format] {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "application_id", schema::APPLICATION_ID)
        .unwrap();
    let format = i64::try_from(format).unwrap();
    old.pragma_update(None, "user_version", format).unwrap();
    old
}

/// As an earlier notifier left them: of each stream the number of its oldest event and of its newest.
fn file_of_format_3(path: &Path, streams: &[(i64, i64)]) {
    let old = file_of_format(path, 3);
    for (id, (first, last)) in (1..).zip(streams) {
        let row = params![id, format!("user:u{id}"), first, last];
        let insert = "INSERT INTO stream (id, name, first, last, unread) VALUES (?1, ?2, ?3, ?4, ?4 + 1 - ?3)";
        old.execute(insert, row).unwrap();
    }
    let newest = streams.iter().map(|(_, last)| *last).max().unwrap();
    for seq in 1..=newest {
        for (id, (first, last)) in (1..).zip(streams) {
            let (event, body) = (Uuid::now_v7(), seq.to_string());
            let row = params![id, seq, event.as_bytes(), body.as_bytes()];
            let insert = "INSERT INTO event (stream, seq, event_id, stored_at, state, body) VALUES (?1, ?2, ?3, 0, 0, ?4)";
            if (*first..=*last).contains(&seq) {
                old.execute(insert, row).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn events_of_format_3_go_on() {
    let folder = Folder::new();
    let path = folder.file("store.db");
    let streams = [
        (1, 0),
        (1, 5),
        (1, 16),
        (1, 32),
        (17, 32),
        (18, 40),
        (20, 19),
        (33, 32),
        (40, 70),
    ];
    file_of_format_3(&path, &streams);
    let store = Sqlite::open(&path, RETENTION).unwrap();
    assert_eq!(check(&path).unwrap(), Vec::<String>::new());
    for (id, (first, last)) in (1..).zip(streams) {
        let name = StreamName::user(&format!("u{id}"));
        let more = (1..=40).map(|n| NewEvent {
            stream: name.clone(),
            id: Uuid::now_v7(),
            body: (last + n).to_string().into(),
            task: None,
            group: None,
        });
        store
            .append(more.collect(), Timestamp::now())
            .await
            .unwrap();
        let entries = store.read(name, 0, u64::MAX, usize::MAX).await.unwrap();
        let found = entries.iter().map(|entry| (entry.seq, entry.body.clone()));
        let wants = (first.cast_unsigned()..=(last + 40).cast_unsigned())
            .map(|seq| (seq, Bytes::from(seq.to_string())));
        assert!(found.eq(wants), "{first} to {last}: {entries:?}");
    }
    assert_eq!(check(&path).unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn tasks_of_format_4_are_paged_by_when_they_were_kept() {
    let folder = Folder::new();
    let path = folder.file("store.db");
    let old = file_of_format(&path, 4);
    for (id, rev, at) in [
        ("b", 1, 1),
        ("a", 1_795_234_133_873_482_i64, 1),
        ("c", 1, 2),
    ] {
        let insert = "INSERT INTO task (user_id, task_id, rev, is_final, stored_at, state) \
                      VALUES ('ann', ?1, ?2, 0, ?3, x'7b7d')";
        old.execute(insert, params![id, rev, at]).unwrap();
    }
    drop(old);
    let store = Sqlite::open(&path, RETENTION).unwrap();
    assert_eq!(check(&path).unwrap(), Vec::<String>::new());
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let query = TaskQuery {
            ended: None,
            before,
            limit: 1,
            max_bytes: 1000,
        };
        let page = store.tasks("ann".into(), query).await.unwrap();
        found.extend(page.items.into_iter().map(|task| task.task_id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(found, ["c", "b", "a"]);
    // A board of thousands is not sorted anew for each page.
    let look = Connection::open(&path).unwrap();
    let plan = "EXPLAIN QUERY PLAN SELECT task_id FROM task WHERE user_id = 'ann' \
                AND (stored_at, task_id) < (2, 'c') ORDER BY stored_at DESC, task_id DESC LIMIT 9";
    let plan: String = look.query_row(plan, [], |row| row.get(3)).unwrap();
    assert!(plan.contains("INDEX task_by_time (user_id=? AND"), "{plan}");
}

#[tokio::test]
async fn a_damaged_file_is_found_out() {
    let folder = Folder::new();
    let path = folder.file("store.db");
    let store = Sqlite::open(&path, RETENTION).unwrap();
    store.append(events(500), Timestamp::now()).await.unwrap();
    drop(store);
    // An event that is gone without a trace.
    let connection = Connection::open(&path).unwrap();
    connection
        .execute("DELETE FROM event WHERE id = 250", [])
        .unwrap();
    // A stream that finds its events under other numbers.
    connection
        .execute("UPDATE block SET rows = CAST(substr(rows, 7) || substr(rows, 1, 6) AS BLOB) WHERE number = 0 AND stream = 2", [])
        .unwrap();
    drop(connection);
    let found = check(&path).unwrap();
    let missing = found.iter().filter(|line| line.contains("missing"));
    assert_eq!(missing.count(), 2, "{found:?}");
    // A page that was overwritten.
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let found = check(&path);
    assert!(
        found.as_ref().map_or(true, |found| !found.is_empty()),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_backup_is_whole_and_says_that_it_is_another_life() {
    let folder = Folder::new();
    let (path, copy) = (folder.file("store.db"), folder.file("copy.db"));
    let store = Sqlite::open(&path, RETENTION).unwrap();
    let batch = events(30);
    let kept = store.append(batch.clone(), Timestamp::now()).await.unwrap();
    backup(&path, &copy).unwrap();
    assert!(backup(&path, &copy).is_err(), "nothing is overwritten");
    assert_eq!(check(&copy).unwrap(), Vec::<String>::new());
    let copied = Sqlite::open(&copy, RETENTION).unwrap();
    let again = copied.append(batch, Timestamp::now()).await.unwrap();
    for (before, after) in kept.iter().zip(&again) {
        assert_eq!(before.position.seq, after.position.seq);
        assert_ne!(before.position.epoch, after.position.epoch);
    }
    drop((store, copied));
    vacuum(&path).unwrap();
    assert_eq!(check(&path).unwrap(), Vec::<String>::new());
}
