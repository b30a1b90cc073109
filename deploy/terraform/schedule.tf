resource "google_cloud_scheduler_job" "tick" {
  name             = "${local.prefix}-tick"
  region           = var.region
  description      = "oncetask ${var.environment}: a tick"
  schedule         = var.schedule
  time_zone        = "Etc/UTC"
  paused           = var.paused
  attempt_deadline = "${local.tick_timeout}s"

  retry_config {
    retry_count = 0 # the next tick is the retry
  }

  http_target {
    http_method = "POST"
    uri         = "${local.tick_url}&linger=${var.linger}"

    oidc_token {
      service_account_email = google_service_account.tick.email
      audience              = local.urls["scheduler"]
    }
  }

  depends_on = [google_cloud_run_v2_service_iam_binding.invoker, google_project_service.service]
}

# Alarms: each is named by its environment and second, so that many tasks of one second are one call.
resource "google_cloud_tasks_queue" "alarms" {
  count = var.waking == "cloudtasks" ? 1 : 0

  name     = "${local.prefix}-alarms"
  location = var.region

  rate_limits {
    max_dispatches_per_second = 5
    max_concurrent_dispatches = var.max_instances * local.concurrency["scheduler"]
  }

  retry_config {
    max_attempts = 2 # what an alarm misses, the next tick finds
  }

  depends_on = [google_project_service.service]
}

resource "google_cloud_tasks_queue_iam_member" "enqueuer" {
  count = var.waking == "cloudtasks" ? 1 : 0

  location = var.region
  name     = google_cloud_tasks_queue.alarms[0].name
  role     = "roles/cloudtasks.enqueuer"
  member   = google_service_account.runtime.member
}

# An alarm carries a token of the account that ticks; whoever sets one has to be allowed to act as it.
resource "google_service_account_iam_member" "alarms_act_as_tick" {
  count = var.waking == "cloudtasks" ? 1 : 0

  service_account_id = google_service_account.tick.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.runtime.member
}
