// Answered by a second translation unit that includes the whole library too.
int version();
