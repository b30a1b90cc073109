# oncetask on Cloud Run functions: what docs/deploy.md describes. firestore.tf has the database, accounts.tf who may do
# what, functions.tf what runs, schedule.tf what starts it.

locals {
  prefix            = "oncetask-${var.environment}"
  database_location = coalesce(var.database_location, var.region)
  store             = var.database == "(default)" ? "firestore://${var.project}" : "firestore://${var.project}/${var.database}"

  # A tick has its budget and 5 s more; the rest is for a cold start. One that nobody gave a budget has 50 s. An event may
  # have to wait for the end of a tick before its own one begins, so it gets all that events may have.
  tick_timeout = max(var.budget, 50) + 15
  timeouts     = { scheduler = local.tick_timeout, api = local.tick_timeout, on_task_created = 540 }

  # Waiting is most of what they do. Events share their ticks, while each call of the scheduler is a tick of its own.
  concurrency = { scheduler = min(var.concurrency, 8), api = var.concurrency, on_task_created = var.concurrency }

  # What functions/main.py has to define.
  entry_points = concat(["scheduler", "api"], var.waking == "created" ? ["on_task_created"] : [])
  names        = { for entry_point in local.entry_points : entry_point => "${local.prefix}-${replace(entry_point, "_", "-")}" }

  # Known beforehand, so that a function may be told its own; also the audience of the tokens that it is called with.
  urls     = { for entry_point, name in local.names : entry_point => "https://${var.region}-${var.project}.cloudfunctions.net/${name}" }
  tick_url = "${local.urls["scheduler"]}?budget=${var.budget}"

  services = concat(
    [
      "artifactregistry.googleapis.com",
      "cloudbuild.googleapis.com",
      "cloudfunctions.googleapis.com",
      "cloudscheduler.googleapis.com",
      "firestore.googleapis.com",
      "iam.googleapis.com",
      "run.googleapis.com",
      "storage.googleapis.com",
    ],
    local.manage_rules ? ["firebaserules.googleapis.com"] : [],
    var.waking == "created" ? ["eventarc.googleapis.com", "pubsub.googleapis.com"] : [],
    var.waking == "cloudtasks" ? ["cloudtasks.googleapis.com"] : [],
  )
}

resource "google_project_service" "service" {
  for_each = toset(local.services)

  service            = each.key
  disable_on_destroy = false # others in the project may need it
}
