#!/usr/bin/env bash
# oncetask on Cloud Run functions without Terraform: what deploy/terraform does, with gcloud and python3.
#
#   PROJECT=my-project REGION=us-west1 deploy/gcloud.sh --dry-run    # prints the commands, and runs none
#   PROJECT=my-project REGION=us-west1 deploy/gcloud.sh
#
# It can be run again at any time: what is there already is kept or updated. Nothing is ever deleted, but for the right
# of everybody to call a function, where AUTH is iam again. docs/deploy.md says what the choices cost.
set -euo pipefail

PROJECT=${PROJECT:?the id of the Google Cloud project}
REGION=${REGION:?the region of the functions, such as us-west1}
ENVIRONMENT=${ENVIRONMENT:-production}          # ONCETASK_ENV, and part of every name
DATABASE=${DATABASE:-(default)}                 # the Firestore database
DATABASE_LOCATION=${DATABASE_LOCATION:-$REGION} # a region, nam5 or eur3
CREATE_DATABASE=${CREATE_DATABASE:-}            # 1: create the database, unless it is there
INDEXES=${INDEXES-1}                            # empty: another environment of this database keeps the indexes
RULES=${RULES:-}                                # 1: release firestore.rules for the whole (default) database, with firebase-tools
BUDGET=${BUDGET:-50}                            # seconds that a tick may take
LINGER=${LINGER:-0}                             # seconds that a tick of the job stays for what becomes due
SCHEDULE=${SCHEDULE:-* * * * *}                 # cron, in UTC
WAKING=${WAKING:-none}                          # none, created, http or cloudtasks
AUTH=${AUTH:-iam}                               # iam: Cloud Run checks callers; oidc: oncetask does, and Cloud Run lets all through
CALLERS=${CALLERS:-}                            # e-mail addresses of service accounts that may call the API, with commas between
RUNTIME=${RUNTIME:-python313}
MEMORY=${MEMORY:-512Mi}
CPU=${CPU:-1}                                   # with less than one CONCURRENCY has to be 1
CONCURRENCY=${CONCURRENCY:-80}                  # requests side by side in one instance; of ticks 8 at most
MAX_INSTANCES=${MAX_INSTANCES:-4}               # of each function

# --- helpers -------------------------------------------------------------------------------------------------

fail() {
  printf 'deploy/gcloud.sh: %s\n' "$1" >&2
  exit 2
}

dry=
case "$*" in
  '') ;;
  --dry-run) dry=1 ;;
  *) fail "the only option is --dry-run, not: $*" ;;
esac
[[ $ENVIRONMENT =~ ^[a-z]([a-z0-9-]{0,12}[a-z0-9])?$ ]] || fail "ENVIRONMENT must be at most 14 of a-z, 0-9 and -, not: $ENVIRONMENT"
[[ $BUDGET =~ ^[1-9][0-9]{0,3}$ && $BUDGET -le 1785 ]] || fail "BUDGET must be 1 to 1785 seconds, not: $BUDGET"
[[ $LINGER =~ ^[0-9]+$ ]] || fail "LINGER must be a number of seconds, not: $LINGER"
[[ $CONCURRENCY =~ ^[1-9][0-9]*$ ]] || fail "CONCURRENCY must be a number of requests, not: $CONCURRENCY"
[[ $WAKING =~ ^(none|created|http|cloudtasks)$ ]] || fail "WAKING must be none, created, http or cloudtasks, not: $WAKING"
[[ $AUTH =~ ^(iam|oidc)$ ]] || fail "AUTH must be iam or oidc, not: $AUTH"
[[ $AUTH == iam || $CALLERS ]] || fail "CALLERS must not be empty where AUTH is oidc: the API would not start"

# Runs a command that changes something, or only prints it.
run() {
  if [[ $dry ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@" >/dev/null
  fi
}

g() {
  run gcloud "$@" --project="$PROJECT" --quiet
}

# Asks, and changes nothing. A dry run asks nothing either, and so has everything still to make.
ask() {
  [[ $dry ]] || gcloud "$@" --project="$PROJECT" --quiet
}

there() {
  [[ ! $dry ]] && ask "$@" >/dev/null 2>&1
}

# A new account is known everywhere only after some seconds.
again() {
  local try
  for try in 1 2 3 4 5; do
    g "$@" && return
    printf 'not yet (try %s of 6): gcloud %s\n' "$try" "$*" >&2
    sleep 10
  done
  g "$@"
}

account() { printf '%s-%s@%s.iam.gserviceaccount.com' "$prefix" "$1" "$PROJECT"; }
url() { printf 'https://%s-%s.cloudfunctions.net/%s-%s' "$REGION" "$PROJECT" "$prefix" "$1"; }

make_account() { # NAME PURPOSE
  there iam service-accounts describe "$(account "$1")" ||
    g iam service-accounts create "$prefix-$1" --display-name="oncetask $ENVIRONMENT: $2"
}

grant() { # NAME ROLE [CONDITION]: a right in the project
  again projects add-iam-policy-binding "$PROJECT" --member="serviceAccount:$(account "$1")" --role="$2" --condition="${3:-None}"
}

may_call() { # FUNCTION MEMBER
  again run services add-iam-policy-binding "$prefix-$1" --region="$REGION" --member="$2" --role=roles/run.invoker
}

prefix=oncetask-$ENVIRONMENT
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# A tick has its budget and 5 s more; the rest is for a cold start. One that nobody gave a budget has 50 s.
timeout=$(((BUDGET > 50 ? BUDGET : 50) + 15))
ticks=$((CONCURRENCY < 8 ? CONCURRENCY : 8)) # each runs 32 tasks
store=firestore://$PROJECT
[[ $DATABASE == '(default)' ]] || store+=/$DATABASE

# --- services --------------------------------------------------------------------------------------------------

services=(artifactregistry cloudbuild cloudfunctions cloudscheduler firestore iam run storage)
[[ $WAKING == created ]] && services+=(eventarc pubsub)
[[ $WAKING == cloudtasks ]] && services+=(cloudtasks)
g services enable "${services[@]/%/.googleapis.com}"

# --- the database, its indexes, exemptions and time-to-live ------------------------------------------------------

if [[ $CREATE_DATABASE ]]; then
  there firestore databases describe --database="$DATABASE" ||
    g firestore databases create --database="$DATABASE" --location="$DATABASE_LOCATION" --type=firestore-native --delete-protection
fi

# One line of gcloud's words for each entry of firestore.indexes.json.
definitions() {
  python3 - "$root/firestore.indexes.json" <<'PY'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    definitions = json.load(file)
for index in definitions["indexes"]:
    words = ["indexes", "composite", "create", f"--collection-group={index['collectionGroup']}"]
    words.append(f"--query-scope={index['queryScope'].lower().replace('_', '-')}")
    for field in index["fields"]:
        kind = f"order={field['order']}" if "order" in field else f"array-config={field['arrayConfig']}"
        words.append(f"--field-config=field-path={field['fieldPath']},{kind.lower()}")
    print(*words)
for field in definitions["fieldOverrides"]:
    group = f"--collection-group={field['collectionGroup']}"
    if field["indexes"]:
        raise SystemExit(f"firestore.indexes.json: {field['fieldPath']} has indexes of its own, which this script cannot make")
    print("indexes", "fields", "update", field["fieldPath"], group, "--disable-indexes")
    if field.get("ttl"):
        print("fields", "ttls", "update", field["fieldPath"], group, "--enable-ttl")
PY
}

# Starts to make one; an index that is there already is refused, which is as good.
define() {
  local refusal
  if [[ $dry ]]; then
    g firestore "$@" --database="$DATABASE" --async
  elif ! refusal=$(gcloud firestore "$@" --database="$DATABASE" --async --project="$PROJECT" --quiet 2>&1); then
    [[ $refusal == *ALREADY_EXISTS* || $refusal == *'already exists'* ]] || fail "$refusal"
  fi
}

if [[ $INDEXES ]]; then
  defined=$(definitions)
  while read -ra words; do
    define "${words[@]}"
  done <<<"$defined"
  # New code may ask what only a new index answers, so the functions wait for them.
  while [[ ! $dry ]]; do
    creating=$(ask firestore indexes composite list --database="$DATABASE" --filter=state=CREATING --format='value(name)')
    [[ $creating ]] || break
    printf 'waiting for the indexes\n' >&2
    sleep 10
  done
fi

if [[ $RULES ]]; then
  [[ $DATABASE == '(default)' ]] || fail "RULES: firebase.json has rules for the (default) database only"
  run firebase deploy --only=firestore:rules --project="$PROJECT" --config="$root/firebase.json"
fi

# --- accounts, each with what it needs and no more; nobody has a key ----------------------------------------------

make_account run 'runs the functions'
grant run roles/datastore.user "title=oncetask-database,expression=resource.name==\"projects/$PROJECT/databases/$DATABASE\""

make_account tick 'calls the scheduler function' # the name of Cloud Scheduler, and of alarms

make_account build 'builds the functions' # instead of an account that may edit the whole project
for role in artifactregistry.writer logging.logWriter storage.objectViewer; do
  grant build "roles/$role"
done

if [[ $WAKING == created ]]; then
  make_account events 'delivers events to on_task_created'
  grant events roles/eventarc.eventReceiver
fi

# --- the queue of alarms --------------------------------------------------------------------------------------

queue=$prefix-alarms
if [[ $WAKING == cloudtasks ]]; then
  change=create
  there tasks queues describe "$queue" --location="$REGION" && change=update
  g tasks queues "$change" "$queue" --location="$REGION" --max-attempts=2 --max-dispatches-per-second=5 \
    --max-concurrent-dispatches=$((MAX_INSTANCES * ticks))
  again tasks queues add-iam-policy-binding "$queue" --location="$REGION" \
    --member="serviceAccount:$(account run)" --role=roles/cloudtasks.enqueuer
  # An alarm carries a token of the account that ticks; whoever sets one has to be allowed to act as it.
  again iam service-accounts add-iam-policy-binding "$(account tick)" \
    --member="serviceAccount:$(account run)" --role=roles/iam.serviceAccountUser
fi

# --- functions ---------------------------------------------------------------------------------------------------

tick_url="$(url scheduler)?budget=$BUDGET"
tickers=$(account tick)
[[ $WAKING == http ]] && tickers+=,$(account run)

settings() { # ENTRY_POINT: its environment variables, with semicolons between, since a value may have commas
  local all="ONCETASK_STORE=$store;ONCETASK_ENV=$ENVIRONMENT"
  if [[ $AUTH == iam || $1 == on_task_created ]]; then # an event brings no token to look at
    all+=";ONCETASK_AUTH=iam"
  elif [[ $1 == scheduler ]]; then
    all+=";ONCETASK_AUTH=oidc;ONCETASK_AUDIENCE=$(url scheduler);ONCETASK_CALLERS=$tickers"
  else
    all+=";ONCETASK_AUTH=oidc;ONCETASK_AUDIENCE=$(url api);ONCETASK_CALLERS=$CALLERS"
  fi
  if [[ $WAKING == none || $WAKING == created ]]; then
    all+=";ONCETASK_WAKE=none"
  else # the scheduler too: a tick that leaves something for want of budget has the next one begin at once
    all+=";ONCETASK_WAKE=$WAKING;ONCETASK_WAKE_URL=$tick_url;ONCETASK_WAKE_AUDIENCE=$(url scheduler)"
  fi
  if [[ $WAKING == cloudtasks ]]; then
    all+=";ONCETASK_WAKE_QUEUE=projects/$PROJECT/locations/$REGION/queues/$queue;ONCETASK_WAKE_SERVICE_ACCOUNT=$(account tick)"
  fi
  printf '^;^%s' "$all"
}

deploy() { # NAME ENTRY_POINT TRIGGER...
  local name=$prefix-$1 entry_point=$2
  shift 2
  g functions deploy "$name" --gen2 --region="$REGION" --runtime="$RUNTIME" \
    --source="$root/functions" --entry-point="$entry_point" --set-env-vars="$(settings "$entry_point")" \
    --run-service-account="$(account run)" \
    --build-service-account="projects/$PROJECT/serviceAccounts/$(account build)" \
    --memory="$MEMORY" --cpu="$CPU" --max-instances="$MAX_INSTANCES" --serve-all-traffic-latest-revision "$@"
}

deploy scheduler scheduler --trigger-http --no-allow-unauthenticated --timeout="${timeout}s" --concurrency="$ticks"
deploy api api --trigger-http --no-allow-unauthenticated --timeout="${timeout}s" --concurrency="$CONCURRENCY"
if [[ $WAKING == created ]]; then
  # Without --retry: an event is a hint, and the next tick finds the task anyway. Events share their ticks, and may have to
  # wait for one to end, so each gets all the time that an event may have. A trigger is where its database is.
  deploy on-task-created on_task_created --timeout=540s --concurrency="$CONCURRENCY" --ingress-settings=internal-only \
    --trigger-location="$DATABASE_LOCATION" \
    --trigger-event-filters="type=google.cloud.firestore.document.v1.created,database=$DATABASE,namespace=(default)" \
    --trigger-event-filters-path-pattern="document=oncetask/$ENVIRONMENT/onceTasks/{id}" \
    --trigger-service-account="$(account events)"
  may_call on-task-created "serviceAccount:$(account events)"
fi

# --- who may call ---------------------------------------------------------------------------------------------

IFS=, read -ra ticking <<<"$tickers"
for caller in "${ticking[@]}"; do
  may_call scheduler "serviceAccount:$caller"
done
IFS=, read -ra calling <<<"$CALLERS"
for caller in ${calling[@]+"${calling[@]}"}; do
  may_call api "serviceAccount:$caller"
done

# With AUTH=oidc the function looks at the token itself. It cannot where Cloud Run has done so before, since Cloud Run
# then takes the signature off.
for name in scheduler api; do
  if [[ $AUTH == oidc ]]; then
    may_call "$name" allUsers
    continue
  fi
  open=$(ask run services get-iam-policy "$prefix-$name" --region="$REGION" \
    --flatten='bindings[].members' --filter='bindings.members=allUsers' --format='value(bindings.role)')
  if [[ $open ]]; then
    g run services remove-iam-policy-binding "$prefix-$name" --region="$REGION" --member=allUsers --role=roles/run.invoker
  fi
done

# --- the tick -------------------------------------------------------------------------------------------------

change=create
there scheduler jobs describe "$prefix-tick" --location="$REGION" && change=update
# Without retries: the next tick is the retry.
g scheduler jobs "$change" http "$prefix-tick" --location="$REGION" --schedule="$SCHEDULE" --time-zone=Etc/UTC \
  --uri="$tick_url&linger=$LINGER" --http-method=post --attempt-deadline="${timeout}s" --max-retry-attempts=0 \
  --oidc-service-account-email="$(account tick)" --oidc-token-audience="$(url scheduler)"

[[ $dry ]] || printf 'scheduler: %s\napi:       %s\nstore:     %s, environment %s\n' \
  "$(url scheduler)" "$(url api)" "$store" "$ENVIRONMENT"
