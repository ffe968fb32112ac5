# Everything that people and CI do with this project. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO := nice cargo
# One choice of packages and features for whatever tests are built here: with another one cargo compiles the crate once more, and where the
# features of serde differ, as they do for the model's package alone, what stands on serde too.
TEST := $(CARGO) test --workspace --all-features
# The process tests' JVMs map their classes from an archive of rig/class-archive; SHARED_CLASSES=0: they do not. What measures starts cold.
SHARED := SHARED_CLASSES=$${SHARED_CLASSES:-1}
# Prints how long a part took, also when it fails.
part = @rig/part "$(1)"

.PHONY: help setup demo demo-down test test-format test-lint test-unit test-docs test-chart test-model model-deep test-processes \
	test-adversity test-kind test-metrics test-upgrade test-providers test-zookeeper test-faults test-gc test-flink-versions \
	test-kubernetes-versions bench-failover bench-restart bench-tasks bench-api-load bench-gateway bench-operator bench-sweep adversity image \
	image-release cluster cluster-down lint-workflows check-dependencies licences sbom generate clean test-security security fuzz program \
	docs

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

setup: ## Install what is missing on this machine (Debian, root): packages, docker engine
	$(call part,set-up) rig/setup

demo: setup ## The whole story on screen: cluster, chart, job, killed leader, nothing left
	demo/run

demo-down: ## Remove what the demo made
	demo/down

test: setup ## Format, lints, unit tests, tests with real Flink JVMs against a real API server, models, attacks, fuzzers
	$(call part,format) $(MAKE) --no-print-directory test-format
	$(call part,build and lint) $(MAKE) --no-print-directory test-lint
	$(call part,unit tests) $(MAKE) --no-print-directory test-unit
	$(MAKE) --no-print-directory test-chart
	$(call part,control plane binaries) rig/assets
	$(call part,jobs) jobs/build
	$(call part,class-data archives) rig/class-archive
	$(call part,S3 server) rig/s3-server
	$(call part,S3 for Flink) rig/flink-plugin flink-s3-fs-hadoop
	$(call part,process tests beside the models) $(MAKE) --no-print-directory --jobs 3 test-processes test-model adversity security fuzz

test-format: ## Is everything formatted?
	cargo fmt --all --check
	cargo fmt --manifest-path tests/fuzz/Cargo.toml --check

test-lint: ## Lints, warnings are errors
	$(CARGO) clippy --workspace --all-targets --all-features --quiet -- -D warnings

# The package of the walks compiles files whose unit tests run with the product.
test-unit: ## Unit tests only
	$(TEST) --exclude flinkha-walks --lib --bins --test pure

docs: test-docs ## Links, and every command, file, value and field that the documents show; generated pages are current

test-docs: ## The same
	$(TEST) --test pure -- commands:: documents:: generated:: metrics:: operations:: rbac::

test-chart: ## The chart over sets of values, its alerts over time series, and the scripts for Argo CD
	$(call part,helm) rig/tools clients
	$(call part,Lua interpreter) rig/argo-cd-lua
	$(call part,promtool) rig/prometheus
	$(call part,chart tests) env PROMTOOL="$$(rig/prometheus)/promtool" HELM="$$(rig/tools clients)/helm" LUA="$$(rig/argo-cd-lua)" $(TEST) --test chart

# It needs one processor, and the tests with JVMs leave enough of it.
test-model: ## The elections and the life of a resource, searched, and what each rule is needed for (WALKS=100000, SEED=1)
	$(call part,models) nice -n 19 $(TEST) --test model --test quorum --test walks -- --nocapture --test-threads 1

model-deep: ## The same with larger budgets of faults (an hour, and some 10 GB of memory)
	MODEL_DEEP=1 $(TEST) --test model -- --nocapture --test-threads 1

# At the lowest priority, as the models. Compiles by itself what the other tests compile without counters.
fuzz: ## Every parser of bytes that others write, fuzzed (FUZZ_SECONDS=20 each, TARGET=..., KEEP=1 adds what was found to the corpus)
	$(call part,fuzz) nice -n 19 tests/fuzz/run

# Four at a time: three leave a third of two processors idle once the models have ended.
test-processes: ## Tests with Flink JVMs, etcd and kube-apiserver as processes
	$(call part,process tests) env $(SHARED) KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test processes -- --test-threads 4 --nocapture

test-adversity: setup ## What goes wrong around a cluster is told on it: case, outcome, seconds, beside the former version (ONLY=...)
	$(call part,control plane binaries) rig/assets
	$(call part,the former version) rig/former release
	$(call part,adversity) env FORMER_PROGRAM="$$(rig/former release)" FORMER_CHART="$$(rig/former chart)" \
		KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test long -- adversity

# The same without the former version.
adversity:
	$(call part,adversity) env KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test long -- adversity

test-security: setup ## Attacks from pods, tenants and the network: what each gets, beside the former version (ONLY=...)
	$(call part,control plane binaries) rig/assets
	$(call part,the former version) rig/former release
	$(call part,security) env FORMER_PROGRAM="$$(rig/former release)" FORMER_CHART="$$(rig/former chart)" \
		KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test long -- security

# The same without the former version.
security:
	$(call part,security) env KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test long -- security

test-kind: setup ## End-to-end tests in a real kind cluster
	$(MAKE) --no-print-directory --jobs 2 cluster program
	$(MAKE) --no-print-directory image
	$(call part,Flink image with archives of classes) rig/flink-classes
	$(call part,kind tests) env FLINK_IMAGE="$${FLINK_IMAGE:-$$(rig/flink-classes)}" $(TEST) --test kind -- --test-threads 32 --nocapture

test-metrics: setup ## A real Prometheus in kind: the chart's alerts fire for their cause, and every query of the dashboard has an answer
	$(MAKE) --no-print-directory --jobs 2 cluster program
	$(MAKE) --no-print-directory image
	$(call part,Flink image with archives of classes) rig/flink-classes
	$(call part,metrics) env FLINK_IMAGE="$${FLINK_IMAGE:-$$(rig/flink-classes)}" $(TEST) --test kind -- --nocapture metrics::

test-faults: setup ## Everything that may go wrong, with real Flink and API servers; a table (FAULTS=5, OUTAGE_SECONDS=90)
	$(call part,control plane binaries) rig/assets
	$(call part,jobs) jobs/build
	$(call part,class-data archives) rig/class-archive
	$(call part,fault tests) env $(SHARED) KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test long -- faults

test-gc: setup ## Jobs that end in every way while leaders are killed: nothing is left, nothing is lost (CYCLES=100, AROUND=50)
	$(call part,control plane binaries) rig/assets
	$(call part,jobs) jobs/build
	$(call part,class-data archives) rig/class-archive
	$(call part,tests of ended jobs) env $(SHARED) KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test long -- gc

# What must hold with either provider of high availability: PROVIDER=kubernetes or zookeeper.
ACCEPTANCE = $(TEST) --test processes -- --test-threads 2 --nocapture --skip native_failover:: \
	application:: failover:: fencing:: ha_data:: outage:: terminal_jobs:: tls::a_session_cluster

test-upgrade: setup cluster image ## In kind, under running jobs: the former version's release upgraded, rolled back, uninstalled; two releases in one namespace
	$(call part,the former version) rig/former image
	$(call part,Flink image with archives of classes) rig/flink-classes
	$(call part,tests of releases) env FLINK_IMAGE="$${FLINK_IMAGE:-$$(rig/flink-classes)}" \
		$(TEST) --test kind -- --ignored --test-threads 1 --nocapture releases::

test-providers: setup ## The acceptance tests with both providers, and a table of their results side by side
	$(call part,control plane binaries) rig/assets
	$(call part,ZooKeeper) rig/zookeeper-dist
	$(call part,jobs) jobs/build
	$(call part,class-data archives) rig/class-archive
	$(call part,class-data archives) rig/class-archive 2.3.0 zookeeper
	$(call part,S3 server) rig/s3-server
	$(call part,S3 for Flink) rig/flink-plugin flink-s3-fs-hadoop
	mkdir -p target/acceptance
	for provider in kubernetes zookeeper; do \
		$(SHARED) PROVIDER=$$provider KUBEBUILDER_ASSETS="$$(rig/assets)" $(ACCEPTANCE) 2>&1 | tee target/acceptance/$$provider; \
	done
	tests/columns Kubernetes=target/acceptance/kubernetes ZooKeeper=target/acceptance/zookeeper

# The acceptance tests of the other provider, then what only a quorum can show, then jobs that end.
test-zookeeper: setup ## Provider ZooKeeper on a real quorum: acceptance, failover beside Flink's own, outages, partitions, deletion, garbage (RUNS=10, CYCLES=100, AROUND=0, STORMS=2)
	$(call part,control plane binaries) rig/assets
	$(call part,ZooKeeper) rig/zookeeper-dist
	$(call part,jobs) jobs/build
	$(call part,class-data archives) rig/class-archive 2.3.0 zookeeper
	$(call part,S3 server) rig/s3-server
	$(call part,S3 for Flink) rig/flink-plugin flink-s3-fs-hadoop
	$(call part,acceptance with ZooKeeper) env $(SHARED) PROVIDER=zookeeper KUBEBUILDER_ASSETS="$$(rig/assets)" \
		$(ACCEPTANCE)
	$(call part,ZooKeeper tests) env KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test long -- zookeeper
	$(call part,the collection of znodes at every write) env EVERY=1 KUBEBUILDER_ASSETS="$$(rig/assets)" \
		$(TEST) --test processes -- --nocapture znode_collection::
	$(call part,ended jobs with ZooKeeper) env $(SHARED) PROVIDER=zookeeper AROUND=$${AROUND:-0} KUBEBUILDER_ASSETS="$$(rig/assets)" \
		$(TEST) --test long -- gc

test-flink-versions: setup cluster image ## Failover in kind, fencing by the audit log, and what must hold on ZooKeeper, with every supported Flink version; upgrades from each to each (VERSIONS="1.20.5 2.3.0")
	for version in 1.20.5 2.2.1 2.3.0; do \
		FLINK_VERSION=$$version $(TEST) --test kind -- --test-threads 1 --nocapture failover; \
		$(SHARED) FLINK_VERSION=$$version KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test processes -- --test-threads 1 --nocapture fencing:: tls::; \
		$(SHARED) FLINK_VERSION=$$version PROVIDER=zookeeper KUBEBUILDER_ASSETS="$$(rig/assets)" $(ACCEPTANCE); \
	done
	$(call part,upgrades of Flink) env KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test long -- flink-upgrades
	$(call part,and back) env VERSIONS="$${BACK:-2.3.0 2.2.1 2.1.3 2.0.2}" KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test long -- flink-upgrades

# What depends on the API server: rules of the CustomResourceDefinition, rights, admission policies, both kinds of apply, lists and watches, the
# chart as Helm installs it, and what gateways, JVMs and TaskManagers write and watch there.
OF_API_SERVER = chart_lifecycle:: control_plane:: failover:: fencing:: former_definition:: gitops:: hold:: operator_ plugin:: presence:: \
	repair:: stored_jobs:: tenants:: waits:: wire::

test-kubernetes-versions: setup ## What depends on the API server, with the oldest Kubernetes and the newest, and a table (VERSIONS="1.29.15 1.37.2")
	$(call part,jobs) jobs/build
	$(call part,class-data archives) rig/class-archive
	mkdir -p target/kubernetes
	columns=(); \
	for version in $${VERSIONS:-1.29.15 1.37.2}; do \
		assets=$$(KUBERNETES_VERSION=v$$version rig/assets); \
		$(SHARED) KUBEBUILDER_ASSETS="$$assets" $(TEST) --test processes -- --test-threads 4 --nocapture --skip native_failover:: --skip zookeeper $(OF_API_SERVER) 2>&1 | \
			tee target/kubernetes/$$version; \
		columns+=("$$version=target/kubernetes/$$version"); \
	done; \
	tests/columns "$${columns[@]}"

# The bench builds and loads the image by itself too: the same one.
bench-failover: export RELEASE = 1
bench-failover: setup cluster image-release ## Failover times beside Flink's own HA, in one run (RUNS=10)
	RUNS=$${RUNS:-10} $(TEST) --test bench-failover

bench-restart: export RELEASE = 1
bench-restart: setup cluster image-release ## What it brings that a JobManager which starts again waits for the recovery, on shared and on separate processors (RUNS=6)
	$(TEST) --test bench-restart

bench-tasks: export RELEASE = 1
bench-tasks: setup cluster image-release ## Failovers of a job of a thousand tasks, by the JobManagers' JVM options (TASKS=1000, RUNS=4)
	$(TEST) --test bench-tasks

bench-api-load: setup ## Requests and watch traffic at the API server beside Flink's own HA (LOAD_SECONDS=60)
	$(call part,control plane binaries) rig/assets
	$(call part,jobs) jobs/build
	KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test long -- api-load

# Measured are programs as they are released. What measures them is built quickly, and yet does not add milliseconds of its own.
bench-gateway: setup ## Memory, processor time and added latency of a gateway, and the grant as jobs grow in number, beside the former version (COST_ROUNDS=2)
	$(call part,control plane binaries) rig/assets
	$(call part,jobs) jobs/build
	$(call part,this version) rig/program release
	$(call part,the former version) rig/former release
	PROGRAM="$$(rig/program release)" FORMER="$$(rig/former release)" KUBEBUILDER_ASSETS="$$(rig/assets)" \
		$(CARGO) test --profile image --config profile.image.opt-level=1 --features long-tests --test long -- gateway-cost

bench-operator: setup ## What many clusters cost the operator, the API server and kubectl flinkha status -A, also when the operator restarts (N=1000, STEADY_SECONDS=60, PROFILE_SECONDS=0)
	$(call part,control plane binaries) rig/assets
	$(call part,this version) rig/program release
	CLUSTERS=$${N:-$${CLUSTERS:-1000}} PROGRAM="$$(rig/program release)" KUBEBUILDER_ASSETS="$$(rig/assets)" $(TEST) --test long -- operator

bench-sweep: setup ## Memory and time of a sweep of a large bucket (OBJECTS=1000000)
	$(call part,control plane binaries) rig/assets
	$(call part,S3 server) rig/s3-server
	$(call part,S3 for Flink) rig/flink-plugin flink-s3-fs-hadoop
	KUBEBUILDER_ASSETS="$$(rig/assets)" $(CARGO) test --release --features long-tests --test long -- sweep

cluster: ## A kind cluster of three nodes, with Flink's image
	$(call part,kind cluster) rig/up
	$(call part,Flink image) rig/flink-image 2.3.0
	$(call part,load Flink image) rig/load flink:2.3.0

cluster-down: ## Remove the kind cluster
	rig/down

# Beside the cluster's start, which leaves processors idle.
program:
	$(call part,operator program) rig/program image

image: ## The operator's image for tests and the demo (a light profile), loaded into the cluster
	$(call part,operator image) rig/image
	$(call part,load operator image) rig/load flinkha/flinkha:dev

image-release: ## The operator's image as it is released, not loaded: to be pushed to where nodes pull from
	$(call part,operator image) env RELEASE=1 rig/image

lint-workflows: ## Check .github/workflows with actionlint
	go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

check-dependencies: ## Licences, sources and versions of dependencies, by cargo-deny (advisories: in the workflow)
	cargo deny --all-features check bans licenses sources

licences: ## The licences of all libraries in the program, in target/licences.txt
	rig/licences

sbom: ## A list of all components of the program (CycloneDX), in target/flinkha.cdx.json, by cargo-cyclonedx
	cargo cyclonedx --format json --spec-version 1.5 --override-filename flinkha.cdx
	mv flinkha.cdx.json target/
	rm -f tests/*/flinkha.cdx.json

generate: ## Write generated files: the CRD, the reference of its fields, the tables of the chart's values, of rights and of metrics, the plugin's manifests
	cargo run --quiet -- crd > crds/flinkhaclusters.flinkha.dev.yaml
	cp crds/flinkhaclusters.flinkha.dev.yaml charts/flinkha/crds/
	GENERATE=1 $(TEST) --test pure -- generated:: metrics:: rbac::
	rig/tools clients
	GENERATE=1 HELM="$$(rig/tools clients)/helm" LUA=none $(TEST) --test chart -- the_plugins_manifests

clean: ## Remove what was built here
	rm -rf target
