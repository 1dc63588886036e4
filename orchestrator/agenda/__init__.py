"""What a sweep wants next: its trial matrix, searches, winners and when to stop a trial."""
