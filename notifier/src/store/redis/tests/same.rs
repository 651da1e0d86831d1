use std::path::Path;

use jiff::SignedDuration;
use uuid::Uuid;

use super::nodes::Cluster;
use super::server::Server;
use super::*;
use crate::store::{GroupPart, JobEnd, Sqlite, Store};
use crate::testing::random;

/// Few, so that they are full soon.
const FEW: Retention = Retention {
    events: 7,
    age: Duration::from_hours(1),
};

const STEPS: usize = 400;

/// Both stores, and what is asked of them.
struct Pair<R> {
    redis: Redis,
    sqlite: Sqlite,
    random: R,
    ids: Vec<Uuid>,
    now: Timestamp,
}

impl<R: FnMut(u64) -> u64> Pair<R> {
    fn index(&mut self, below: usize) -> usize {
        usize::try_from((self.random)(below as u64)).unwrap()
    }

    fn limit(&mut self) -> u32 {
        u32::try_from((self.random)(5)).unwrap()
    }

    fn user(&mut self) -> String {
        format!("u{}", (self.random)(2))
    }

    fn stream(&mut self) -> StreamName {
        match (self.random)(4) {
            0 => "room:r".parse().unwrap(),
            _ => StreamName::user(&self.user()),
        }
    }

    fn id(&mut self) -> Uuid {
        let count = self.ids.len();
        if (self.random)(3) == 0 && count > 0 {
            let back = self.index(count.min(12));
            return self.ids[count - 1 - back];
        }
        let id = Uuid::now_v7();
        self.ids.push(id);
        id
    }

    fn task(&mut self) -> TaskRecord {
        let rev = (self.random)(50);
        TaskRecord {
            user_id: self.user(),
            task_id: (self.random)(6).to_string(),
            rev,
            is_final: (self.random)(4) == 0,
            state: rev.to_string().into(),
        }
    }

    fn part(&mut self) -> GroupPart {
        let size = 1 + u32::try_from((self.random)(4)).unwrap();
        let index = u32::try_from((self.random)(4)).unwrap();
        let end = [JobEnd::Succeeded, JobEnd::Failed, JobEnd::Cancelled][self.index(3)];
        // Some are more than a group may keep.
        let bytes = [0, 1, 50_000, 200_000][self.index(4)];
        GroupPart {
            owner: self.user(),
            group_id: format!("g{}", (self.random)(4)),
            size,
            index,
            task_id: format!("ü{index}").repeat(self.index(3)),
            rev: (self.random)(50),
            end,
            result: ((self.random)(2) == 0).then(|| "7".repeat(bytes).into()),
        }
    }

    fn batch(&mut self) -> Vec<NewEvent> {
        let count = (self.random)(12);
        let event = |_| NewEvent {
            stream: self.stream(),
            id: self.id(),
            body: (self.random)(1000).to_string().into(),
            task: ((self.random)(3) == 0).then(|| self.task()),
            group: ((self.random)(3) == 0).then(|| self.part()),
        };
        (0..count).map(event).collect()
    }

    async fn append(&mut self) {
        let batch = self.batch();
        let ours = Store::append(&self.redis, batch.clone(), self.now).await;
        let theirs = self.sqlite.append(batch, self.now).await;
        let plain = |kept: Vec<Kept>| -> Vec<_> {
            let plain = kept.iter();
            let plain = plain.map(|kept| (kept.position.seq, kept.is_new, kept.unread, kept.group));
            plain.collect()
        };
        assert_eq!(plain(ours.unwrap()), plain(theirs.unwrap()));
    }

    async fn mark(&mut self) {
        let user = self.user();
        let mark = [Mark::Read, Mark::Archived][self.index(2)];
        let marked = match (self.random)(3) {
            0 => Marked::UpTo((self.random)(self.ids.len() as u64 + 1)),
            _ => Marked::Ids((0..(self.random)(5)).map(|_| self.id()).collect()),
        };
        let ours = Store::mark(&self.redis, user.clone(), marked.clone(), mark);
        let theirs = self.sqlite.mark(user, marked, mark);
        // Each has epochs of its own.
        let plain = |unread: Unread| (unread.count, unread.counted_at.map(|at| at.seq));
        let (ours, theirs) = (ours.await.unwrap(), theirs.await.unwrap());
        assert_eq!(plain(ours), plain(theirs));
    }

    async fn sweep(&mut self) {
        let (mut ours, mut theirs) = (Swept::default(), Swept::default());
        for (store, sum) in [
            (&self.redis as &dyn Store, &mut ours),
            (&self.sqlite, &mut theirs),
        ] {
            loop {
                let swept = store.sweep(self.now).await.unwrap();
                sum.events += swept.events;
                sum.tasks += swept.tasks;
                sum.groups += swept.groups;
                if !swept.more {
                    break;
                }
            }
        }
        assert_eq!(ours, theirs);
    }

    async fn compare(&mut self) {
        let stream = self.stream();
        let ours = Store::heads(&self.redis, vec![stream.clone()]).await;
        let theirs = self.sqlite.heads(vec![stream.clone()]).await.unwrap();
        let epoch = theirs[0].epoch;
        let ours = ours.unwrap().into_iter();
        let ours: Vec<_> = ours.map(|head| Head { epoch, ..head }).collect();
        assert_eq!(ours, theirs, "{stream}");
        let after = (self.random)(theirs[0].last + 1);
        let bytes = self.index(20);
        let ours = Store::read(&self.redis, stream.clone(), after, after + 5, bytes);
        let theirs = self.sqlite.read(stream, after, after + 5, bytes);
        assert_eq!(ours.await.unwrap(), theirs.await.unwrap());
    }

    async fn compare_inboxes(&mut self) {
        let user = self.user();
        let last = self.ids.len() as u64 + 1;
        let query = InboxQuery {
            before: ((self.random)(2) == 0).then(|| (self.random)(last)),
            unread_only: (self.random)(2) == 0,
            archived: (self.random)(2) == 0,
            limit: self.limit(),
            max_bytes: self.index(12),
        };
        let ours = Store::inbox(&self.redis, user.clone(), query).await;
        let theirs = self.sqlite.inbox(user.clone(), query).await;
        assert_eq!(ours.unwrap(), theirs.unwrap(), "{query:?}");
        let query = TaskQuery {
            ended: [None, Some(true), Some(false)][self.index(3)],
            before: ((self.random)(2) == 0).then(|| TaskPlace {
                stored_at: (self.now - SignedDuration::from_mins((self.random)(60).cast_signed()))
                    .as_millisecond(),
                task_id: (self.random)(7).to_string(),
            }),
            limit: self.limit(),
            max_bytes: self.index(8),
        };
        let ours = Store::tasks(&self.redis, user.clone(), query.clone()).await;
        let theirs = self.sqlite.tasks(user.clone(), query.clone()).await;
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!(ours, theirs, "{query:?}");
        let query = TaskQuery {
            before: theirs.next,
            ..query
        };
        let ours = Store::tasks(&self.redis, user.clone(), query.clone()).await;
        let theirs = self.sqlite.tasks(user.clone(), query.clone()).await;
        assert_eq!(ours.unwrap(), theirs.unwrap(), "{query:?}");
        let group = format!("g{}", (self.random)(5));
        let ours = Store::group(&self.redis, user.clone(), group.clone());
        let theirs = self.sqlite.group(user.clone(), group);
        assert_eq!(ours.await.unwrap(), theirs.await.unwrap());
        let id = (self.random)(6).to_string();
        let ours = Store::task(&self.redis, user.clone(), id.clone());
        let theirs = self.sqlite.task(user, id);
        assert_eq!(ours.await.unwrap(), theirs.await.unwrap());
    }
}

async fn answers_alike(redis: Redis, folder: &Path) {
    let mut pair = Pair {
        redis,
        sqlite: Sqlite::open(&folder.join("store.db"), FEW).unwrap(),
        random: random(),
        ids: Vec::new(),
        now: "2026-01-15T10:30:00Z".parse().unwrap(),
    };
    for _ in 0..STEPS {
        pair.now += SignedDuration::from_mins((pair.random)(8).cast_signed());
        match (pair.random)(10) {
            0..4 => pair.append().await,
            4..6 => pair.mark().await,
            6 => pair.sweep().await,
            7 => {
                let tasks = vec![pair.task(), pair.task()];
                let ours = Store::put_tasks(&pair.redis, tasks.clone(), pair.now);
                ours.await.unwrap();
                pair.sqlite.put_tasks(tasks, pair.now).await.unwrap();
            }
            _ => {}
        }
        pair.compare().await;
        pair.compare_inboxes().await;
    }
}

#[tokio::test]
async fn it_answers_as_the_embedded_store_does() {
    let server = Server::start(&[]).await;
    let redis = Redis::open(&server.url(), "", FEW).unwrap();
    answers_alike(redis, server.folder()).await;
}

#[tokio::test]
async fn a_cluster_answers_as_the_embedded_store_does() {
    let cluster = Cluster::shared().await;
    let prefix = format!("{}:", Uuid::now_v7());
    let redis = Redis::open(&cluster.urls(), &prefix, FEW).unwrap();
    answers_alike(redis, cluster.nodes[0].server.folder()).await;
}
