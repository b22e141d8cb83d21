//! The rules file: what is built in, what a user's file changes, and what is said of a bad one.

use super::stage::*;
use crate::{Rules, examine};

fn error(text: &str) -> String {
    Rules::with("mine.toml", text).unwrap_err().to_string()
}

#[test]
fn the_built_in_rules_know_the_common_services() {
    let rules = rules();
    let names: Vec<&str> = rules.services().collect();
    for name in ["PostgreSQL", "MySQL", "MongoDB", "Redis", "RabbitMQ", "Grafana", "Vaultwarden", "Memcached"]
    {
        assert!(names.contains(&name), "{name}");
    }
    assert!(names.len() > 80);
    for service in &rules.services {
        assert!(
            service.advice.ends_with('.') && !service.advice.trim_end_matches('.').contains(". "),
            "{}",
            service.name
        );
        let keeps = service.class != crate::rules::Class::Cache;
        assert_eq!(keeps, !service.data.is_empty(), "{}", service.name);
        let image = service.images.first().unwrap();
        let container = container("x", &image.replace('*', "x"));
        let found = crate::recognise::recognise(&container, rules);
        assert_eq!(found.len(), 1, "{}: {found:?}", service.name);
        assert_eq!(found[0].service.name, service.name, "the image {image} is another's too");
    }
}

#[test]
fn what_was_made_at_home_is_recognised_by_its_places() {
    let known = |change: &dyn Fn(&mut crate::facts::Container)| {
        let mut home = container("x", "registry.example.com/team/thing:1");
        change(&mut home);
        let found = crate::recognise::recognise(&home, rules());
        found.into_iter().map(|found| found.service.name.clone()).collect::<Vec<_>>()
    };
    let data = "/var/lib/postgresql/data";
    let port = |port: &str| vec![format!("{port}/tcp")];
    assert_eq!(
        known(&|it| it.labels = [("org.opencontainers.image.title".into(), "MariaDB Database".into())].into()),
        ["MariaDB"]
    );
    assert_eq!(
        known(&|it| (it.declared_volumes, it.exposed_ports) = (vec![format!("{data}/")], port("5432"))),
        ["PostgreSQL"]
    );
    assert_eq!(
        known(&|it| (it.layer, it.exposed_ports) =
            (layer(&[("/var/lib/postgresql/data/base/1", 9)]), port("5432"))),
        ["PostgreSQL"]
    );
    // Which of the two can't be said, and does not matter to their data.
    let mysql = || (vec!["/var/lib/mysql".into()], port("3306"));
    assert_eq!(known(&|it| (it.declared_volumes, it.exposed_ports) = mysql()), ["MySQL", "MariaDB"]);
    // Any one of these alone is nobody's; and what runs is seen to be something else.
    assert_eq!(known(&|it| it.declared_volumes = vec![data.into()]), [""; 0]);
    assert_eq!(
        known(&|it| (it.declared_volumes, it.exposed_ports) = (vec!["/data".into()], port("6379"))),
        [""; 0]
    );
    assert_eq!(
        known(&|it| {
            (it.declared_volumes, it.exposed_ports) = (vec![data.into()], port("5432"));
            it.processes = vec!["cron".into()];
        }),
        [""; 0]
    );
}

#[test]
fn errors_name_file_line_and_rule() {
    let bad = [
        ("[[noise]]\nname = \"x\"\npath = [\"/x\"]\n", "mine.toml:3: unknown field `path`"),
        ("[[noise]]\n\nname = \"x\"\n", "mine.toml:3: rule \"x\": paths are missing"),
        (
            "[[noise]]\nname = \"x\"\npaths = [\"x\"]\n",
            "mine.toml:2: rule \"x\": \"x\" does not begin with /",
        ),
        (
            "[[noise]]\nname = \"logs\"\n[[noise]]\nname = \"logs\"\n",
            "mine.toml:4: rule \"logs\": the name stands twice",
        ),
        ("[[noise]]\nname = \" \"\n", "mine.toml:2: rule \" \": the name is empty"),
        (
            "[[service]]\nname = \"x\"\ndisabled = true\n",
            "mine.toml:2: rule \"x\": disabled = true, but there is no rule",
        ),
        ("[[service]]\nname = \"x\"\n", "mine.toml:2: rule \"x\": class is missing"),
        ("[[service]]\nname = \"x\"\nclass = \"thing\"\n", "mine.toml:3: unknown variant `thing`"),
        (
            "[[service]]\nname = \"x\"\nclass = \"app\"\nadvice = \"x\"\n",
            "mine.toml:2: rule \"x\": nothing to recognise it by",
        ),
        (
            "[[service]]\nname = \"Redis\"\ndata = [\"/data/\"]\n",
            "mine.toml:2: rule \"Redis\": \"/data/\" is no absolute path",
        ),
        (
            "[[service]]\nname = \"Redis\"\nlabels = [\"x\"]\n",
            "mine.toml:2: rule \"Redis\": label \"x\" has no =",
        ),
        ("[settings]\nlarge = \"much\"\n", "mine.toml: rule \"settings\": large: \"much\" is not a size"),
        ("[settings]\nnear_full_percent = 0\n", "mine.toml: rule \"settings\": near_full_percent must be"),
        ("[settings]\njust_now = \"5\"\n", "mine.toml:2:"),
        ("name = ", "mine.toml:1:"),
    ];
    for (text, message) in bad {
        let error = error(text);
        assert!(error.starts_with(message), "{error}\nshould be {message}");
        assert!(error.ends_with("; correct the file and run this again"), "{error}");
    }
}

#[test]
fn a_users_file_adds_changes_and_switches_off() {
    let text = r#"
[settings]
large = "1KiB"

[[noise]]
name = "our scratch"
paths = ["/scratch/**"]

[[noise]]
name = "logs"
disabled = true

[[service]]
name = "Ledger"
class = "database"
labels = ["com.example.role=ledger*"]
data = ["/var/ledger"]
advice = "Ask the ledger team."

[[service]]
name = "PostgreSQL"
advice = "Call the database team."

[[service]]
name = "Redis"
disabled = true
"#;
    let mine = Rules::with("mine.toml", text).unwrap();
    let built_in = rules();
    assert_eq!(mine.services().count(), built_in.services().count());
    assert!(!mine.services().any(|name| name == "Redis"));
    let postgres = mine.services.iter().find(|service| service.name == "PostgreSQL").unwrap();
    assert_eq!(postgres.advice, "Call the database team.");
    assert!(postgres.images.contains(&"postgres".to_owned()), "what is not given stays");

    let mut host = healthy();
    let mut ledger = container("ledger", "ghcr.io/example/ledger:1");
    ledger.labels.insert("com.example.role".into(), "ledger-primary".into());
    let mut tally = crate::Tally::new(&mine);
    for path in ["/var/ledger/book", "/scratch/x", "/var/log/audit"] {
        tally.add(path.as_bytes(), crate::Change::Added, crate::Kind::File, 5000, 5000, now());
    }
    ledger.layer = Ok(tally.finish());
    host.containers.push(ledger);
    let report = examine(&host, &mine);
    let found: Vec<_> = report.findings.iter().map(|finding| (finding.code, finding.bytes)).collect();
    assert_eq!(found, [("data-in-layer", Some(5000)), ("files-in-layer", Some(5000))]);
    assert!(report.findings[0].why.ends_with("Ask the ledger team"));
    assert!(report.findings[0].found.ends_with("last written just now"));
    assert_eq!(report.findings[1].path.as_deref(), Some("/var/log"));
    assert_eq!(report.findings[1].severity, crate::Severity::Loss);
}

#[test]
fn a_data_directory_in_another_is_counted_with_it() {
    let text = "[[service]]\nname = \"Nested\"\nclass = \"app\"\nimages = [\"nested\"]\ndata = [\"/d/inner\", \"/d\"]\nadvice = \"None.\"\n";
    let mine = Rules::with("mine.toml", text).unwrap();
    let mut nested = container("nested", "nested:1");
    nested.layer = layer(&[("/d/inner/x", 5), ("/d/y", 7)]);
    let report = examine(&host(vec![nested]), &mine);
    let found: Vec<_> = report.findings.iter().map(|finding| (finding.code, finding.bytes)).collect();
    assert_eq!(found, [("data-in-layer", Some(12))]);
}

#[test]
fn data_paths_are_those_of_the_environment_and_of_the_image() {
    let mut db = postgres("db");
    db.env.insert("PGDATA".into(), "/srv//pg/".into());
    assert_eq!(rules().data_paths(&db), ["/srv/pg", "/var/lib/postgresql/data"]);
    assert!(rules().data_paths(&container("x", "busybox")).is_empty());
}

#[test]
fn services_are_recognised_without_their_image() {
    let rules = rules();
    let names = |change: fn(&mut crate::facts::Container)| {
        let mut unknown = container("x", "registry.example/team/own:1");
        change(&mut unknown);
        let found = crate::recognise::recognise(&unknown, rules);
        found.into_iter().map(|found| found.service.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        names(|x| x.processes = vec!["postgres".into(), "redis-server".into()]),
        ["PostgreSQL", "Redis"]
    );
    assert_eq!(
        names(|x| x.command = vec!["tini".into(), "--".into(), "/usr/bin/mongod".into()]),
        ["MongoDB"]
    );
    assert_eq!(
        names(|x| x.mounts = vec![mount("v", "/var/lib/mysql", content(1, &["ibdata1", "aria_log_control"]))]),
        ["MySQL", "MariaDB"]
    );
    // GitLab's image brings a PostgreSQL of its own, whose data is GitLab's.
    assert_eq!(
        names(|x| {
            x.image = "gitlab/gitlab-ce:18.6".into();
            x.processes = vec!["postgres".into(), "redis-server".into()];
        }),
        ["GitLab"]
    );
    assert!(names(|x| x.exposed_ports = vec!["5432/tcp".into()]).is_empty(), "a port alone");
    assert!(names(|x| x.env = [("PGDATA".into(), "/x".into())].into()).is_empty(), "a variable alone");
    assert!(names(|x| x.command = vec!["backup.sh".into(), "postgres".into()]).is_empty());
    let inherited = names(|x| {
        x.exposed_ports = vec!["5432/tcp".into()];
        x.env = [("PGDATA".into(), "/x".into())].into();
    });
    assert!(inherited.is_empty(), "what a backup image made from that of PostgreSQL has");
}

#[test]
fn what_keeps_nothing_has_no_data() {
    let rules = rules();
    let data = |image: &str, command: &[&str], env: &[(&str, &str)]| {
        let mut container = container("x", image);
        container.command = command.iter().map(|word| (*word).to_owned()).collect();
        container.env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        !crate::recognise::recognise(&container, rules)[0].data.is_empty()
    };
    assert!(data("redis", &["redis-server"], &[]));
    assert!(data("redis", &["redis-server", "--save", "60 1"], &[]));
    assert!(!data("redis", &["redis-server", "--save", "", "--appendonly", "no"], &[]));
    assert!(data("redis", &["redis-server", "--save", "", "--appendonly", "yes"], &[]));
    assert!(!data("redis", &["sh", "-c", "redis-server --save '' --maxmemory 1g"], &[]));
    assert!(!data("nats", &["nats-server"], &[]) && data("nats", &["nats-server", "-js"], &[]));
    assert!(!data("hashicorp/vault", &["vault", "server", "-dev"], &[]));
    assert!(!data("keycloak/keycloak", &["start"], &[("KC_DB", "postgres")]));
    assert!(data("keycloak/keycloak", &["start-dev"], &[]));
    assert!(!data("memcached", &[], &[]));
}
