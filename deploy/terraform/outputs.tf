output "scheduler_url" {
  description = "What Cloud Scheduler calls; also the audience of the token for it."
  value       = local.urls["scheduler"]
}

output "api_url" {
  description = "The HTTP API; also the audience of the token for it."
  value       = local.urls["api"]
}

output "runtime_account" {
  description = "Whom the functions run as: grant it what your handlers need."
  value       = google_service_account.runtime.email
}

output "store" {
  description = "ONCETASK_STORE for workers and clients elsewhere; ONCETASK_ENV is the environment."
  value       = local.store
}

output "environment_variables" {
  description = "What each function was told."
  value       = local.environment
}
