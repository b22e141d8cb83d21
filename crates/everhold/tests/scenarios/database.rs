//! A database that commits while things happen to everything around it.

use crate::postgres::{Writer, assert_all_there, assert_no_errors, sql, start};
use crate::{growing_fs, in_kernel, with_docker};
use std::time::Duration;
use testkit::until;

#[test]
fn the_daemon_is_killed_while_the_database_commits() {
    let mut sandbox = with_docker(&["postgres"]);
    sandbox.volume("pgdata", &["size=1GiB", "uid=999", "gid=999", "mode=0700"]);
    start(&sandbox, "pg", "pgdata");
    let writer = Writer::start(&sandbox, "pg");
    writer.wait_for(20);
    let before = sandbox.json(&["volume", "inspect", "pgdata"]);
    for _ in 0..3 {
        sandbox.kill();
        writer.wait_for(50);
        sandbox.start();
        writer.wait_for(20);
    }
    let after = sandbox.json(&["volume", "inspect", "pgdata"]);
    assert_eq!(before["attachments"], after["attachments"], "the same attachments");
    assert!(after["attachments"].as_array().is_some_and(|list| list.len() == 1), "{after}");
    sandbox.stop();
    writer.wait_for(50);
    sandbox.start();
    let acknowledged = writer.stop();
    assert_no_errors(&sandbox, "pg");
    sandbox.docker(&["rm", "-f", "pg"]);
    until("the volume is unmounted", Duration::from_secs(10), || in_kernel(&sandbox) == (0, 0));
    start(&sandbox, "pg", "pgdata");
    assert_all_there(&sandbox, "pg", &acknowledged);
}

#[test]
fn the_engine_is_killed_and_restarted() {
    let sandbox = with_docker(&["postgres"]);
    sandbox.volume("pgdata", &["size=1GiB", "exclusive=true"]);
    start(&sandbox, "pg", "pgdata");
    let writer = Writer::start(&sandbox, "pg");
    writer.wait_for(50);
    sandbox.kill_docker();
    let acknowledged = writer.stop();
    sandbox.restart_docker();
    sandbox.docker(&["rm", "-f", "pg"]);
    // Whatever the killed engine did not say: the volume can be used again, although it is exclusive.
    until("the volume is free", Duration::from_secs(60), || {
        sandbox.try_docker(&["volume", "inspect", "pgdata"]).status.success()
            && sandbox.json(&["volume", "inspect", "pgdata"])["attachments"]
                .as_array()
                .is_some_and(Vec::is_empty)
    });
    start(&sandbox, "pg", "pgdata");
    assert_all_there(&sandbox, "pg", &acknowledged);
}

#[test]
fn the_volume_grows_while_the_database_writes() {
    let sandbox = with_docker(&["postgres"]);
    sandbox.volume("pgdata", &["size=400MiB", growing_fs(), "autogrow=max:1GiB,at:90%,by:30%"]);
    start(&sandbox, "pg", "pgdata");
    let writer = Writer::start(&sandbox, "pg");
    writer.wait_for(20);
    sandbox.ok(&["volume", "grow", "pgdata", "512MiB"]);
    sandbox.ok(&["volume", "grow", "pgdata", "512MiB"]);
    writer.wait_for(50);
    let (code, told) = sandbox.fails(&["volume", "grow", "pgdata", "100MiB"]);
    assert_eq!(code, 8, "{told}");
    assert!(told.contains("shrinking"), "{told}");
    let size = || sandbox.json(&["volume", "usage", "pgdata"])["size"].as_u64().expect("a size");
    let before = size();
    assert!(before > 400 << 20, "{before}");

    // And by its rule, when the database fills it.
    sql(
        &sandbox,
        "pg",
        "create table big as select repeat(md5(i::text), 30) t from generate_series(1, 350000) i",
    );
    until("it has grown by its rule", Duration::from_secs(20), || size() > before);
    let acknowledged = writer.stop();
    assert_no_errors(&sandbox, "pg");
    assert_all_there(&sandbox, "pg", &acknowledged);
}
