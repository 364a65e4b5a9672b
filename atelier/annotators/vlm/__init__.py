"""The vision-language annotator: prompts, client, response cache and the agent."""
