variable "project" {
  description = "The Google Cloud project, by its id."
  type        = string
}

variable "region" {
  description = "Where functions, scheduler job and queue run: the region of the database, or one near it."
  type        = string
}

variable "environment" {
  description = "ONCETASK_ENV, and part of every name here. Environments share a database and never see each other."
  type        = string
  default     = "production"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,12}[a-z0-9])?$", var.environment))
    error_message = "At most 14 of a-z, 0-9 and -, beginning with a letter, not ending in -: accounts are named after it."
  }
}

variable "database" {
  description = "The Firestore database, by its id."
  type        = string
  default     = "(default)"
}

variable "database_location" {
  description = "Where the database is: a region, nam5 or eur3. Left out: the same as region."
  type        = string
  default     = null
}

variable "create_database" {
  description = "Create the database. It outlives terraform destroy."
  type        = bool
  default     = false
}

variable "manage_indexes" {
  description = "Keep the indexes and time-to-live policies of firestore.indexes.json. Exactly one environment of a database does."
  type        = bool
  default     = true
}

variable "manage_rules" {
  description = "Release firestore.rules as the rules of the whole database. Left out: only where create_database is set."
  type        = bool
  default     = null
}

variable "budget" {
  description = "Seconds that a tick may take. The time limits of functions and job are made from it."
  type        = number
  default     = 50

  validation {
    condition     = var.budget >= 1 && var.budget <= 1785
    error_message = "From 1 to 1785: Cloud Scheduler waits 30 minutes for an answer at most."
  }
}

variable "linger" {
  description = "Seconds that a tick of the job stays for what becomes due, as far as its budget goes."
  type        = number
  default     = 0
}

variable "schedule" {
  description = "When to tick, as cron says it, in UTC. Once a minute is as often as Cloud Scheduler can."
  type        = string
  default     = "* * * * *"
}

variable "paused" {
  description = "Pause the scheduler job: nothing ticks until it is resumed."
  type        = bool
  default     = false
}

variable "waking" {
  description = "What starts tasks between two ticks: none, created (a Firestore trigger), http (a call after each enqueue) or cloudtasks (alarms)."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "created", "http", "cloudtasks"], var.waking)
    error_message = "One of none, created, http and cloudtasks."
  }
}

variable "auth" {
  description = "Who checks the callers of scheduler and api: iam (Cloud Run, before a request arrives) or oidc (oncetask itself; Cloud Run then lets everybody through to it)."
  type        = string
  default     = "iam"

  validation {
    condition     = contains(["iam", "oidc"], var.auth)
    error_message = "iam or oidc."
  }
}

variable "callers" {
  description = "Service accounts that may call the HTTP API, by e-mail address. Empty: nobody may; auth = oidc needs one."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for caller in var.callers : can(regex("^[^:@]+@[^:@]+\\.gserviceaccount\\.com$", caller))])
    error_message = "Plain addresses, such as web@my-project.iam.gserviceaccount.com."
  }
}

variable "runtime" {
  description = "The Python of the functions."
  type        = string
  default     = "python313"
}

variable "memory" {
  description = "Memory of one instance."
  type        = string
  default     = "512Mi"
}

variable "cpu" {
  description = "CPUs of one instance, such as 1 or 0.5. With less than one its concurrency has to be 1."
  type        = string
  default     = "1"
}

variable "concurrency" {
  description = "Requests that one instance serves side by side; of ticks 8 at most, since each alone runs 32 tasks."
  type        = number
  default     = 80
}

variable "max_instances" {
  description = "The most instances of each function."
  type        = number
  default     = 4
}
