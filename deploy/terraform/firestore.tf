# Indexes, exemptions, time-to-live and rules come from the files that firebase.json names too: there is one truth.

locals {
  definitions  = jsondecode(file("${path.module}/../../firestore.indexes.json"))
  manage_rules = coalesce(var.manage_rules, var.create_database)

  indexes = {
    for index in local.definitions.indexes :
    join(" ", concat([index.collectionGroup], [for field in index.fields : field.fieldPath])) => index
    if var.manage_indexes
  }
  fields = {
    for field in local.definitions.fieldOverrides : "${field.collectionGroup} ${field.fieldPath}" => field
    if var.manage_indexes
  }
}

resource "google_firestore_database" "database" {
  count = var.create_database ? 1 : 0

  name                    = var.database
  location_id             = local.database_location
  type                    = "FIRESTORE_NATIVE"
  delete_protection_state = "DELETE_PROTECTION_ENABLED"
  deletion_policy         = "ABANDON" # the tasks are not Terraform's

  depends_on = [google_project_service.service]
}

resource "google_firestore_index" "index" {
  for_each = local.indexes

  database    = var.database
  collection  = each.value.collectionGroup
  query_scope = each.value.queryScope

  dynamic "fields" {
    for_each = each.value.fields

    content {
      field_path   = fields.value.fieldPath
      order        = try(fields.value.order, null)
      array_config = try(fields.value.arrayConfig, null)
    }
  }

  depends_on = [google_firestore_database.database, google_project_service.service]
}

resource "google_firestore_field" "field" {
  for_each = local.fields

  database   = var.database
  collection = each.value.collectionGroup
  field      = each.value.fieldPath

  # Without any `indexes` the block is what exempts the field.
  index_config {
    dynamic "indexes" {
      for_each = each.value.indexes

      content {
        query_scope  = try(indexes.value.queryScope, null)
        order        = try(indexes.value.order, null)
        array_config = try(indexes.value.arrayConfig, null)
      }
    }
  }

  dynamic "ttl_config" {
    for_each = try(each.value.ttl, false) ? [true] : []

    content {}
  }

  depends_on = [google_firestore_database.database, google_project_service.service]
}

resource "google_firebaserules_ruleset" "rules" {
  count = local.manage_rules ? 1 : 0

  source {
    files {
      name    = "firestore.rules"
      content = file("${path.module}/../../firestore.rules")
    }
  }

  depends_on = [google_firestore_database.database, google_project_service.service]

  lifecycle {
    create_before_destroy = true # a ruleset in use cannot be deleted
  }
}

resource "google_firebaserules_release" "rules" {
  count = local.manage_rules ? 1 : 0

  name         = var.database == "(default)" ? "cloud.firestore" : "cloud.firestore/${var.database}"
  ruleset_name = "projects/${var.project}/rulesets/${google_firebaserules_ruleset.rules[0].name}"
}
