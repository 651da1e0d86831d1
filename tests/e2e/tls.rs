//! `amqps://` with a CA of one's own and a client certificate, against the broker's TLS listener.

use std::path::PathBuf;

use bellhop_common::amqp::{Names, Publisher, Topology};
use bellhop_common::config::{AmqpConfig, AmqpUrl, HumanDuration};
use bellhop_common::enqueue::enqueue;
use bellhop_common::telemetry::Component;
use bellhop_common::tls;
use bellhop_common::wire::Job;
use bellhop_tests::broker::{fresh_prefix, setting};
use jiff::Timestamp;
use serde_json::json;

fn config() -> AmqpConfig {
    let certs = PathBuf::from(setting("BELLHOP_TEST_CERTS"));
    let mut config = AmqpConfig {
        url: AmqpUrl::new(setting("BELLHOP_TEST_AMQPS_URL")),
        prefix: fresh_prefix(),
        ..AmqpConfig::default()
    };
    config.tls.ca_file = Some(certs.join("ca.pem"));
    config.tls.cert_file = Some(certs.join("client.pem"));
    config.tls.key_file = Some(certs.join("client.key"));
    config
}

async fn try_a_job(config: &AmqpConfig) -> Result<(), String> {
    tls::install_provider();
    let names = Names::new(config);
    let topology = Topology::base(&names).with_job_queue(&names, "default");
    let (publisher, task) = Publisher::start(config, "tls", topology, Component::default());
    let job = Job::new("t1", "k", json!({}), "ann");
    let result = enqueue(&publisher, &names, "default", &job, Timestamp::now()).await;
    task.close().await;
    result.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_client_with_the_ca_and_a_certificate_gets_in() {
    assert_eq!(try_a_job(&config()).await, Ok(()));
}

#[tokio::test]
async fn without_a_certificate_or_the_ca_nobody_gets_in() {
    let mut no_certificate = config();
    no_certificate.tls.cert_file = None;
    no_certificate.tls.key_file = None;
    let mut no_ca = config();
    no_ca.tls.ca_file = None;
    let mut no_file = config();
    no_file.tls.ca_file = Some("/does/not/exist.pem".into());
    for mut config in [no_certificate, no_ca, no_file] {
        config.publish_timeout = HumanDuration::from_secs(3);
        let error = try_a_job(&config).await.unwrap_err();
        assert!(error.contains("no confirm"), "{error}");
    }
}
