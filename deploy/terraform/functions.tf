data "archive_file" "source" {
  type        = "zip"
  source_dir  = "${path.module}/../../functions"
  excludes    = ["__pycache__"]
  output_path = "${path.module}/.build/${var.environment}.zip"
}

resource "google_storage_bucket" "source" {
  name                        = "${var.project}-${local.prefix}-source"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # nothing in it but archives of functions/

  depends_on = [google_project_service.service]
}

resource "google_storage_bucket_object" "source" {
  name   = "functions-${data.archive_file.source.output_md5}.zip" # another source is another name, and so a new build
  bucket = google_storage_bucket.source.name
  source = data.archive_file.source.output_path
}

locals {
  # Under auth = "oidc": whose tokens oncetask takes.
  token_callers = {
    scheduler = concat(
      [google_service_account.tick.email],
      var.waking == "http" ? [google_service_account.runtime.email] : [],
    )
    api = var.callers
  }

  environment = {
    for entry_point, name in local.names : entry_point => merge(
      {
        ONCETASK_STORE = local.store
        ONCETASK_ENV   = var.environment
      },
      # An event brings no token to look at, so on_task_created is behind Cloud Run's check in any case.
      var.auth == "iam" || entry_point == "on_task_created" ? {
        ONCETASK_AUTH = "iam"
        } : {
        ONCETASK_AUTH     = "oidc"
        ONCETASK_AUDIENCE = local.urls[entry_point]
        ONCETASK_CALLERS  = join(",", local.token_callers[entry_point])
      },
      local.wakers[entry_point],
    )
  }

  wakers = {
    for entry_point, name in local.names : entry_point => merge(
      {
        ONCETASK_WAKE = "none"
      },
      # The scheduler too: a tick that leaves something for want of budget has the next one begin at once.
      var.waking == "http" || var.waking == "cloudtasks" ? {
        ONCETASK_WAKE          = var.waking
        ONCETASK_WAKE_URL      = local.tick_url
        ONCETASK_WAKE_AUDIENCE = local.urls["scheduler"]
      } : {},
      var.waking == "cloudtasks" ? {
        ONCETASK_WAKE_QUEUE           = google_cloud_tasks_queue.alarms[0].id
        ONCETASK_WAKE_SERVICE_ACCOUNT = google_service_account.tick.email
      } : {},
    )
  }
}

resource "google_cloudfunctions2_function" "function" {
  for_each = local.names

  name        = each.value
  location    = var.region
  description = "oncetask ${var.environment}: ${each.key} of functions/main.py"

  build_config {
    runtime         = var.runtime
    entry_point     = each.key
    service_account = google_service_account.build.id

    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    service_account_email            = google_service_account.runtime.email
    environment_variables            = local.environment[each.key]
    timeout_seconds                  = local.timeouts[each.key]
    available_cpu                    = var.cpu
    available_memory                 = var.memory
    max_instance_request_concurrency = local.concurrency[each.key]
    max_instance_count               = var.max_instances
    ingress_settings                 = each.key == "on_task_created" ? "ALLOW_INTERNAL_ONLY" : "ALLOW_ALL"
  }

  dynamic "event_trigger" {
    for_each = each.key == "on_task_created" ? [true] : []

    content {
      event_type            = "google.cloud.firestore.document.v1.created"
      trigger_region        = local.database_location # a trigger is where its database is
      service_account_email = google_service_account.events[0].email
      retry_policy          = "RETRY_POLICY_DO_NOT_RETRY" # an event is a hint: the next tick finds the task anyway

      event_filters {
        attribute = "database"
        value     = var.database
      }
      event_filters {
        attribute = "namespace"
        value     = "(default)"
      }
      event_filters {
        attribute = "document"
        operator  = "match-path-pattern"
        value     = "oncetask/${var.environment}/onceTasks/{id}"
      }
    }
  }

  # Indexes first: new code may ask what only a new index answers.
  depends_on = [
    google_firestore_field.field,
    google_firestore_index.index,
    google_project_iam_member.build,
    google_project_iam_member.events_receiver,
    google_project_iam_member.runtime_datastore,
  ]

  lifecycle {
    precondition {
      condition     = var.auth == "iam" || length(var.callers) > 0
      error_message = "With auth = \"oidc\" the API does not start without callers."
    }
  }
}
