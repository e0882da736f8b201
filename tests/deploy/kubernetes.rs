//! The manifests: built by kubectl, judged by the schemas of Kubernetes, and the command of the container run with the file
//! of the ConfigMap.

use std::{fs, process::Command};

use alluvium::config::DaemonConfig;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    common::{Daemon, database, free_port},
    path, run,
};

const OVERLAYS: [&str; 3] = ["single", "high-availability", "monitoring"];

/// What kubectl makes of an overlay, as YAML and read.
fn built(overlay: &str) -> (String, Vec<Value>) {
    let folder = path("deploy/kubernetes").join(overlay);
    let (yaml, _) = run(Command::new("kubectl").arg("kustomize").arg(folder));
    (yaml.clone(), read(&yaml))
}

/// The documents of a file of YAML.
fn read(yaml: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.yaml");
    fs::write(&file, yaml).unwrap();
    let program =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let (json, _) = run(Command::new("python3").args(["-c", program]).arg(file));
    serde_json::from_str(&json).unwrap()
}

fn one<'a>(all: &'a [Value], kind: &str) -> &'a Value {
    let of_kind: Vec<&Value> = all.iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(of_kind.len(), 1, "{kind}");
    of_kind[0]
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn kubernetes_takes_every_overlay() {
    for overlay in OVERLAYS {
        let (yaml, _) = built(overlay);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("all.yaml");
        fs::write(&file, yaml).unwrap();
        run(Command::new("kubernetes-validate").args(["--strict", "--quiet"]).arg(file));
    }
    let example = path("deploy/kubernetes/secret.example.yaml");
    run(Command::new("kubernetes-validate").args(["--strict", "--quiet"]).arg(example));
}

#[test]
fn a_pod_may_do_nothing_and_has_time_to_stop() {
    for overlay in OVERLAYS {
        let (_, all) = built(overlay);
        let pod = &one(&all, "Deployment")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true, "{overlay}");
        assert_eq!(security["allowPrivilegeEscalation"], false, "{overlay}");
        assert_eq!(texts(&security["capabilities"]["drop"]), ["ALL"], "{overlay}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{overlay}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{overlay}");
        assert_eq!(pod["enableServiceLinks"], false, "{overlay}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{overlay}");
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace >= DaemonConfig::default().shutdown_timeout.as_secs() + 10, "{overlay}");
        one(&all, "NetworkPolicy");
    }
}

#[test]
fn high_availability_is_two_that_are_spread_and_not_taken_away_together() {
    for overlay in ["high-availability", "monitoring"] {
        let (_, all) = built(overlay);
        let deployment = &one(&all, "Deployment")["spec"];
        assert_eq!(deployment["replicas"], 2);
        let spread = &deployment["template"]["spec"]["topologySpreadConstraints"];
        let labels = &deployment["template"]["metadata"]["labels"];
        assert_eq!(spread[0]["topologyKey"], "kubernetes.io/hostname");
        assert_eq!(spread[0]["labelSelector"]["matchLabels"], *labels);
        let budget = &one(&all, "PodDisruptionBudget")["spec"];
        assert_eq!(
            (&budget["minAvailable"], &budget["selector"]["matchLabels"]),
            (&1.into(), labels)
        );
    }
}

#[test]
fn what_prometheus_scrapes_is_what_the_pod_offers() {
    let (_, all) = built("monitoring");
    let pod = &one(&all, "Deployment")["spec"]["template"];
    let service = one(&all, "Service");
    let monitor = &one(&all, "ServiceMonitor")["spec"];
    let port = &pod["spec"]["containers"][0]["ports"][0];
    assert_eq!(service["spec"]["selector"], pod["metadata"]["labels"]);
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"]);
    assert_eq!(monitor["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    assert_eq!(monitor["selector"]["matchLabels"], service["metadata"]["labels"]);
    let ingress = &one(&all, "NetworkPolicy")["spec"]["ingress"][0];
    assert_eq!(ingress["ports"][0]["port"], port["name"]);
}

#[test]
fn prometheus_gets_the_rules_that_are_tested() {
    let head = "# The rules of metrics/alluvium.rules.yml for the Prometheus operator, made by\n\
                # ALLUVIUM_WRITE=1 cargo test --features tools --test deploy prometheus\n\
                apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n\
                metadata:\n  name: alluvium\nspec:\n";
    let rules = fs::read_to_string(path("metrics/alluvium.rules.yml")).unwrap();
    let indented = rules.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("  {line}\n"),
    });
    let wanted = head.to_owned() + &indented.collect::<String>();
    let file = path("deploy/kubernetes/monitoring/prometheusrule.yaml");
    if std::env::var_os("ALLUVIUM_WRITE").is_some() {
        fs::write(&file, &wanted).unwrap();
    }
    assert_eq!(fs::read_to_string(file).unwrap(), wanted, "make it anew, as its first lines say");
}

/// What the container has in its environment.
fn environment<'a>(container: &'a Value, name: &str) -> &'a str {
    let variables = container["env"].as_array().unwrap();
    let found = variables.iter().find(|variable| variable["name"] == name);
    found.and_then(|variable| variable["value"].as_str()).unwrap()
}

/// The configuration and the arguments of the container, with the connection string where the pod finds it.
fn container(overlay: &str, uri: &str) -> (String, Value, TempDir) {
    let (_, all) = built(overlay);
    let file = one(&all, "ConfigMap")["data"]["alluvium.toml"].as_str().unwrap().to_owned();
    let container = one(&all, "Deployment")["spec"]["template"]["spec"]["containers"][0].clone();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("uri");
    fs::write(&secret, uri).unwrap();
    let mounted = "/run/secrets/alluvium/uri";
    assert!(file.contains(mounted));
    let example = fs::read_to_string(path("deploy/kubernetes/secret.example.yaml")).unwrap();
    assert!(read(&example)[0]["stringData"]["uri"].as_str().unwrap().starts_with("mongodb://"));
    (file.replace(mounted, secret.to_str().unwrap()), container, folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_container_projects_with_the_file_of_the_configmap_and_its_probes_find_it_well() {
    let db = database().await;
    let (file, container, _folder) = container("high-availability", &db.uri);
    assert_eq!(texts(&container["args"]), ["run", "--config", "/etc/alluvium/alluvium.toml"]);
    let listen = environment(&container, "ALLUVIUM_HTTP__HEALTH_LISTEN");
    let (everywhere, offered) = listen.rsplit_once(':').unwrap();
    let port = &container["ports"][0];
    assert_eq!((everywhere, offered), ("0.0.0.0", port["containerPort"].to_string().as_str()));
    let (api, probes) = (free_port(), free_port());
    let http = format!("listen = \"127.0.0.1:{api}\"\nhealth_listen = \"0.0.0.0:{probes}\"\n");
    let file = file.replace("\"game\"", &format!("{:?}", db.name)) + "[http]\n" + &http;
    let mut daemon = Daemon::start(&file);
    daemon.ready().await;
    for (probe, said) in [("livenessProbe", "alive"), ("readinessProbe", "ready")] {
        let asked = &container[probe]["httpGet"];
        assert_eq!(asked["port"], port["name"], "{probe}");
        let url = format!("http://127.0.0.1:{probes}{}", asked["path"].as_str().unwrap());
        // As a kubelet names the pod.
        let answer = ureq::get(url).header("host", "10.244.0.7:8751").call();
        let text = answer.unwrap().body_mut().read_to_string().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()[said], true, "{text}");
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[test]
fn what_is_missing_or_secret_in_a_pod_is_told_with_what_to_do() {
    let (file, ..) = container("single", "");
    let folder = tempfile::tempdir().unwrap();
    let mounted = folder.path().join("alluvium.toml");
    fs::write(&mounted, file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    let output = command.args(["config", "check", "--config"]).arg(&mounted).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["mongodb.uri_file", "cannot be read", "write the connection string into it"] {
        assert!(said.contains(part), "{said} does not say {part}");
    }
}

#[test]
fn the_image_runs_as_nobody_and_builds_nothing_in_its_last_stage() {
    let file = fs::read_to_string(path("deploy/Dockerfile")).unwrap();
    let last = file.rsplit("\nFROM ").next().unwrap();
    let has = |line: &str| last.lines().any(|found| found.starts_with(line));
    assert!(last.starts_with("gcr.io/distroless/cc-debian12:nonroot"));
    assert!(has("USER 65532:65532") && !has("RUN "), "{last}");
    assert!(has("ENTRYPOINT [\"/usr/bin/alluvium\"]"), "{last}");
    let words =
        r#"["/usr/bin/alluvium", "health", "--live", "--config", "/etc/alluvium/alluvium.toml"]"#;
    assert!(last.contains(words), "{last}");
}
