# Four accounts, each with what it needs and no more. Nobody has a key.

# The functions themselves.
resource "google_service_account" "runtime" {
  account_id   = "${local.prefix}-run"
  display_name = "oncetask ${var.environment}: runs the functions"

  depends_on = [google_project_service.service]
}

resource "google_project_iam_member" "runtime_datastore" {
  project = var.project
  role    = "roles/datastore.user"
  member  = google_service_account.runtime.member

  condition {
    title      = "oncetask-database"
    expression = "resource.name == \"projects/${var.project}/databases/${var.database}\""
  }
}

# Cloud Scheduler, and the alarms of Cloud Tasks, call the scheduler function under this name.
resource "google_service_account" "tick" {
  account_id   = "${local.prefix}-tick"
  display_name = "oncetask ${var.environment}: calls the scheduler function"

  depends_on = [google_project_service.service]
}

# Eventarc delivers events under this name.
resource "google_service_account" "events" {
  count = var.waking == "created" ? 1 : 0

  account_id   = "${local.prefix}-events"
  display_name = "oncetask ${var.environment}: delivers events to on_task_created"

  depends_on = [google_project_service.service]
}

resource "google_project_iam_member" "events_receiver" {
  count = var.waking == "created" ? 1 : 0

  project = var.project
  role    = "roles/eventarc.eventReceiver"
  member  = google_service_account.events[0].member
}

# Cloud Build makes the functions' images under this name, instead of one that may edit the whole project.
resource "google_service_account" "build" {
  account_id   = "${local.prefix}-build"
  display_name = "oncetask ${var.environment}: builds the functions"

  depends_on = [google_project_service.service]
}

resource "google_project_iam_member" "build" {
  for_each = toset(["roles/artifactregistry.writer", "roles/logging.logWriter", "roles/storage.objectViewer"])

  project = var.project
  role    = each.key
  member  = google_service_account.build.member
}

# Who may call which function: exactly these. With auth = "oidc" the function looks at the token itself. It cannot where
# Cloud Run has done so before, since Cloud Run then takes the signature off.
locals {
  open = var.auth == "oidc" ? ["allUsers"] : []
  invokers = {
    scheduler = concat(
      local.open,
      [google_service_account.tick.member],
      var.waking == "http" ? [google_service_account.runtime.member] : [],
    )
    api             = concat(local.open, [for caller in var.callers : "serviceAccount:${caller}"])
    on_task_created = google_service_account.events[*].member
  }
}

resource "google_cloud_run_v2_service_iam_binding" "invoker" {
  for_each = { for entry_point, name in local.names : entry_point => name if entry_point != "api" || var.auth == "oidc" || length(var.callers) > 0 }

  location = var.region
  name     = google_cloudfunctions2_function.function[each.key].name
  role     = "roles/run.invoker"
  members  = local.invokers[each.key]
}
